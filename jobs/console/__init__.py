"""What the commands share: arguments, progress, how a command ends."""

"""The command line beyond argparse: files of settings, flags that do nothing, completion."""

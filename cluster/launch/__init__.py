"""Files that `ray up` or Kubernetes starts a cluster from, with this project in them."""

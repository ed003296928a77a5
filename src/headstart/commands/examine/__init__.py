"""``headstart examine``: label budget, leaks, doubtful labels."""

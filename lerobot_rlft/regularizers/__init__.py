"""Terms that hold the diversity of the base. One file each; importing the package registers them."""

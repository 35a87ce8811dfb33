"""A packaged data set; a package, so that its files ship in the wheel."""

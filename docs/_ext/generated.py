"""Pages that are made of other files of the repository, when the site is built."""

def write_gallery(root, folder):
    pass

def write_results(root, folder):
    pass

"""The files of a site: names, links, templates, and the folder they are written to."""

"""The files of a site: names, links, templates, and the folder that they are written to."""

"""The input of a site: verified records without their large parts."""

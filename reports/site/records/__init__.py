"""What a site is built from: verified records, without their bulk."""

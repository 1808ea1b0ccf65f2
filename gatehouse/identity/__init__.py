"""Identity: the site's vault, its certification authorities, and what devices and services prove themselves with."""

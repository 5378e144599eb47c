"""Makes labelled pictures of rare defects from annotated photos."""

"""`llava-inspect`: one command over data_prep, llava and eval."""

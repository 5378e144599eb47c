"""What `llava-inspect synthesize` adds to data_prep.synthesis: methods and a judge that need a model."""

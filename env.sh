. /work/main/.venv/bin/activate; export PYTHONPATH=/work/wt3; cd /work/wt3

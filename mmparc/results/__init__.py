"""Experiments: plan their runs (plan.py), run them (run.py, slurm.py), collect and write results.

A table is a file of configs/tables: models to be trained and compared. tools/reproduce.py makes its
runs, tools/paper_tables.py writes what came out, beside the published numbers.
"""

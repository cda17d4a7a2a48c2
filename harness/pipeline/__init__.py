"""The programs of the pipeline, and where content comes from."""

"""The REST interface with many readers, against the same interface by FastAPI on uvicorn."""

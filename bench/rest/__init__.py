"""The REST interface under many readers, against the same interface by FastAPI on uvicorn."""

"""The local HTTP port: the only fastapi and uvicorn imports."""

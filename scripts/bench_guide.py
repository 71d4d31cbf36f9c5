"""The deployment guide's own design, measured beside ours: bench_guide.py MODEL PORT WORKERS, with ultralytics."""

import sys
import tempfile
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI, File, UploadFile
from torchvision_stand_in import allow_missing_torchvision

allow_missing_torchvision()
from ultralytics import YOLO  # noqa: E402

app = FastAPI()
model = YOLO(sys.argv[1], task="detect")


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.post("/predict")
async def predict(file: UploadFile = File(...)) -> dict[str, object]:  # noqa: B008  # FastAPI's way, and the guide's
    began_s = time.perf_counter()
    with tempfile.NamedTemporaryFile(suffix=Path(file.filename or "").suffix or ".jpg") as kept:
        kept.write(await file.read())
        kept.flush()
        (found,) = model.predict(kept.name, imgsz=640, verbose=False)
    boxes = [
        {"bbox": one.xyxy[0].tolist(), "confidence": float(one.conf), "class_id": int(one.cls)} for one in found.boxes
    ]
    return {"detections": boxes, "processing_time": time.perf_counter() - began_s}


if __name__ == "__main__":
    uvicorn.run(
        "bench_guide:app", host="127.0.0.1", port=int(sys.argv[2]), workers=int(sys.argv[3]), log_level="warning"
    )

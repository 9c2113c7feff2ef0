"""A small room as a depth camera sees it, written in the layouts of the data sets; a module, not a test."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 48, 36
CAMERA = (40.0, 41.0, 24.0, 18.0)  # fx, fy, cx, cy


def poses(count: int) -> np.ndarray:
    """(V, 4, 4) camera to world: turning in place by 10 degrees a frame."""
    out = np.tile(np.eye(4), (count, 1, 1))
    for v, angle in enumerate(np.deg2rad(10) * np.arange(count)):
        out[v, 0, 0] = out[v, 2, 2] = np.cos(angle)
        out[v, 0, 2], out[v, 2, 0] = np.sin(angle), -np.sin(angle)
        out[v, :3, 3] = 0.5, 0.1, -0.2
    return out


def depths(poses: np.ndarray, units: float = 1000.0) -> list[np.ndarray]:
    """(H, W) uint16 per pose: the inside of a box from -2 to 2 m; one pixel is unknown, one saturated."""
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    fx, fy, cx, cy = CAMERA
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u, float)], -1)
    images = []
    for pose in poses:
        toward = rays @ pose[:3, :3].T
        wall = np.where(toward > 0, 2, -2) - pose[:3, 3]
        z = (wall / np.where(toward == 0, 1e-9 * np.sign(wall), toward)).min(-1)
        image = np.rint(z * units).astype(np.uint16)
        image[0, 0], image[0, 1] = 0, 65535
        images.append(image)
    return images


def world_points(depth: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """(N, 3) of all pixels that are known, by the formula."""
    v, u = np.nonzero((depth > 0) & (depth < 65535))
    fx, fy, cx, cy = CAMERA
    z = depth[v, u] / 1000
    return np.stack([(u - cx) * z / fx, (v - cy) * z / fy, z], 1) @ pose[:3, :3].T + pose[:3, 3]


def write_png(path: Path, depth: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(depth).save(path)


def intrinsics(size: int, bx: float = 0.0) -> str:
    matrix = np.eye(size)
    matrix[[0, 1, 0, 1], [0, 1, 2, 2]] = CAMERA
    if size == 4:
        matrix[0, 3] = bx
    return "\n".join(" ".join(f"{v:f}" for v in row) for row in matrix) + "\n"


def matrix_text(matrix: np.ndarray) -> str:
    return "\n".join(" ".join(f"{v:.9f}" for v in row) for row in matrix) + "\n"


def write_scannet(folder: Path, count: int = 4, step: int = 25) -> Path:
    """depth/ pose/ intrinsic/, unpadded numbers; colour is not needed."""
    all_poses = poses(count)
    for v, (pose, depth) in enumerate(zip(all_poses, depths(all_poses))):
        write_png(folder / "depth" / f"{v * step}.png", depth)
        (folder / "pose").mkdir(exist_ok=True)
        (folder / "pose" / f"{v * step}.txt").write_text(matrix_text(pose))
    (folder / "intrinsic").mkdir()
    (folder / "intrinsic" / "intrinsic_depth.txt").write_text(intrinsics(4))
    return folder


def write_seven_scenes(folder: Path, count: int = 4, step: int = 25, intrinsics_in: Path | None = None) -> Path:
    all_poses = poses(count)
    for v, (pose, depth) in enumerate(zip(all_poses, depths(all_poses))):
        write_png(folder / f"frame-{v * step:06d}.depth.png", depth)
        (folder / f"frame-{v * step:06d}.pose.txt").write_text(matrix_text(pose).replace(" ", "\t "))
    ((intrinsics_in or folder) / "camera-intrinsics.txt").write_text(intrinsics(3))
    return folder


def write_tum(folder: Path, count: int = 4) -> Path:
    """Images 1/30 s apart, poses every 5 ms, so that none falls onto an image's time."""
    all_poses = poses(count)
    lines, tracked = ["# depth maps", "# timestamp filename"], ["# ground truth"]
    for v, (pose, depth) in enumerate(zip(all_poses, depths(all_poses, 5000.0))):
        time = 1305031102.1234 + v / 30
        write_png(folder / "depth" / f"{time:.6f}.png", depth)
        lines.append(f"{time:.6f} depth/{time:.6f}.png")
        half = np.deg2rad(10) * v / 2
        t = pose[:3, 3]
        for off in (-0.018, 0.003):  # the farther one is of another place
            far = 9.0 if off < 0 else 0.0
            tracked.append(f"{time + off:.4f} {t[0] + far} {t[1]} {t[2]} 0 {3 * np.sin(half)} 0 {3 * np.cos(half)}")
    (folder / "depth.txt").write_text("\n".join(lines) + "\n")
    (folder / "rgb.txt").write_text("# none\n")
    (folder / "groundtruth.txt").write_text("\n".join(tracked) + "\n")
    return folder


def write_sens(path: Path, count: int = 4, compression: int = 1, lost: tuple[int, ...] = ()) -> Path:
    """Version 4, with colour data that has to be hopped over."""
    all_poses = poses(count)
    camera = np.eye(4, dtype="<f4")
    camera[[0, 1, 0, 1], [0, 1, 2, 2]] = CAMERA
    other = np.full((4, 4), 7, "<f4")
    name = b"StructureSensor"
    data = struct.pack("<IQ", 4, len(name)) + name
    data += other.tobytes() + other.tobytes() + camera.tobytes() + np.eye(4, dtype="<f4").tobytes()
    data += struct.pack("<2i4IfQ", 2, compression, 1296, 968, WIDTH, HEIGHT, 1000.0, count)
    for v, (pose, depth) in enumerate(zip(all_poses, depths(all_poses))):
        pose = np.full((4, 4), -np.inf) if v in lost else pose
        color, raw = b"\xff" * (100 + v), depth.astype("<u2").tobytes()
        packed = zlib.compress(raw) if compression == 1 else raw
        data += pose.astype("<f4").tobytes() + struct.pack("<4Q", 1, 2, len(color), len(packed)) + color + packed
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path

"""Builds stand-ins for the CUDA libraries that torch's wheel links to but that are never called on a CPU.

Python's torch loads libtorch_cuda.so even on a machine without a GPU, and that library needs cuBLAS, cuDNN, NCCL and others:
2.5 GB that the reference does not need. This script compiles one small library that defines every function torch imports from
them (each aborts when called) and links it into torch/lib under every missing name. Needs `cc` and `nm`, like building Rust.

usage: cuda_standins.py SITE_PACKAGES
"""

import re
import subprocess
import sys
from pathlib import Path

MISSING_LIBRARIES = (
    "libcublas.so.13", "libcublasLt.so.13", "libcudnn.so.9", "libcufft.so.12", "libcufile.so.0", "libcurand.so.10",
    "libcusparse.so.12", "libcusparseLt.so.0", "libnccl.so.2", "libnvshmem_host.so.3",
)
IMPORTED_FUNCTION = re.compile(r"\bU ((?:cublas|cudnn|cufft|cuFile|curand|cusparse|nccl|nvshmem)\w*)$", re.MULTILINE)


def main() -> None:
    libraries = Path(sys.argv[1]) / "torch" / "lib"
    users = [libraries / name for name in ("libtorch_cuda.so", "libtorch_nvshmem.so", "libtorch_python.so")]
    symbols = subprocess.run(
        ["nm", "--dynamic", "--undefined-only", "--without-symbol-versions", *users], check=True, capture_output=True, text=True
    ).stdout
    functions = sorted(set(IMPORTED_FUNCTION.findall(symbols)))
    source = "#include <stdlib.h>\n" + "".join(f"void {name}(void) {{ abort(); }}\n" for name in functions)
    standin = libraries / "libcuda_standins.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", standin], input=source, check=True, text=True)
    for name in MISSING_LIBRARIES:
        (libraries / name).unlink(missing_ok=True)
        (libraries / name).symlink_to(standin.name)


if __name__ == "__main__":
    main()

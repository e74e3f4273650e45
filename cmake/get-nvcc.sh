#!/usr/bin/env bash
# Prints where an nvcc is that can compile the kernels. On Debian, where there is none, the compiler that Debian 13 packages is unpacked
# into .tools/cuda; nothing is installed, so the system stays as it is, and neither a GPU nor its driver is needed. `get-nvcc.sh here` only looks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. cmake/debian.sh

tools=$PWD/.tools
packages=(nvidia-cuda-toolkit nvidia-cuda-dev libcu++-dev libcub-dev libthrust-dev)

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The first nvcc that knows Hopper and gets on with the C++ compiler here; what the others say about that is kept.
problems=
find_nvcc() {
  local nvcc problem
  while read -r nvcc; do
    if problem=$("$nvcc" -gencode arch=compute_90a,code=sm_90a -E -x cu /dev/null 2>&1 >/dev/null); then
      echo "$nvcc"
      return
    fi
    problems+=$nvcc$' cannot be used:\n'$problem$'\n'
  done < <(PATH=${CUDA_HOME:+$CUDA_HOME/bin:}$PATH:/usr/local/cuda/bin:$tools/cuda/bin type -aP nvcc)
  return 1
}

# apt with sources, lists and cache of its own. What the system says holds (a proxy, for one), but not what it does after an update.
configure_apt() {
  mkdir -p "$1"/{none,lists/partial,archives/partial}
  echo "deb [arch=$(dpkg --print-architecture) lang=none target=Packages signed-by=$3] $2 trixie main contrib non-free" > "$1/sources.list"
  cat > "$1/apt.conf" <<TEXT
#clear APT::Update;
APT::Sandbox::User "root";
Dir::Etc { SourceList "$1/sources.list"; SourceParts "$1/none"; PreferencesParts "$1/none"; };
Dir::State "$1";
Dir::Cache "$1";
TEXT
}

download() {
  local apt=$1 mirror keyring
  mirror=$(debian_mirror) || die "no Debian mirror is known to apt here to fetch nvcc from (apt-get update first?)"
  keyring=$(debian_keyring) || die "the keys of Debian, to fetch nvcc with, are not here (apt-get install debian-archive-keyring)"
  say "fetching nvcc 12.4 from Debian 13: 1 GB, once, of which .tools/cuda keeps a fifth ..."
  configure_apt "$apt" "$mirror" "$keyring"
  cd "$apt"
  apt-get -qq -c apt.conf update >&2 && apt-get -qq -c apt.conf download "${packages[@]}" >&2 || die "nvcc could not be fetched from $mirror"
}

# take PACKAGE FILES...: unpacks these alone.
take() { dpkg-deb --fsys-tarfile "$1"_*.deb | tar -x --wildcards "${@:2}"; }

# Lays the packages in this folder out as CUDA's own installer does. Most of their gigabyte is libraries for programs to link, which kernels do not.
lay_out() {
  local cuda=$1
  take nvidia-cuda-toolkit ./usr/bin ./usr/lib/nvidia-cuda-toolkit/bin ./usr/lib/nvidia-cuda-toolkit/libdevice
  take nvidia-cuda-dev ./usr/include './usr/lib/*/libcudart_static.a' './usr/lib/*/libcudadevrt.a'
  take libcu++-dev ./usr/include
  take libcub-dev ./usr/include
  take libthrust-dev ./usr/include
  mkdir -p "$cuda"/nvvm/bin "$cuda"/lib64
  # usr/bin/nvcc only calls the real one, and its neighbours g++ and gcc look for a compiler that this nvcc takes.
  rm usr/bin/nvcc usr/lib/nvidia-cuda-toolkit/bin/nvcc.profile
  mv usr/lib/nvidia-cuda-toolkit/bin usr/include "$cuda"
  mv usr/bin/* "$cuda"/bin
  mv "$cuda"/bin/cicc "$cuda"/nvvm/bin
  mv usr/lib/nvidia-cuda-toolkit/libdevice "$cuda"/nvvm
  mv usr/lib/*/*.a "$cuda"/lib64
  cat > "$cuda"/bin/nvcc.profile <<'TEXT'
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES += "-isystem" "$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib64"
TEXT
  # Since glibc 2.41 the C library declares these four too, and says that they do not throw.
  sed -i -E '/^extern .*__device_builtin__ +(double|float) +(cos|sin)pif?\(/ s/;$/ noexcept (true);/' "$cuda"/include/crt/math_functions.h
}

fetch() {
  rm -rf "$tools"/fetching
  mkdir -p "$tools"/fetching
  trap 'rm -rf "$tools"/fetching' EXIT
  download "$tools"/fetching
  lay_out cuda
  mv cuda "$tools"
}

find_nvcc && exit
if [ "${1:-}" = here ]; then
  die "${problems}no nvcc is here; ./build.sh kernels finds one"
elif ! is_debian; then
  die "${problems}nvcc 12.4 or later is needed, on the PATH or in CUDA_HOME; it is part of the CUDA toolkit: https://developer.nvidia.com/cuda-downloads"
elif [ ! -d "$tools"/cuda ]; then
  problems=
  fetch
  find_nvcc && exit
fi
die "${problems}The nvcc of Debian 13 needs g++, version 13 or older (apt-get install g++-12); if that is here, remove .tools/cuda to fetch nvcc anew."

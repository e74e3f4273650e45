#!/usr/bin/env bash
# Everything there is to do with this project, by one verb each: setup build kernels test demo pack bundle.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. cmake/debian.sh

configuration=Release
needed_symbol=GLIBCXX_3.4.32
# Where ldconfig lies, which ordinary users of Debian do not have on their path.
PATH=$PATH:/usr/sbin:/sbin

usage() {
  cat <<TEXT
usage: ./build.sh VERB
  setup        fetch what this machine lacks (Debian 12: a newer libstdc++)
  build        build the solution
  kernels      compile the CUDA kernels (build does it too); Debian without nvcc fetches one into .tools
  test [full]  build and run the tests; full adds the long ones
  demo         train on the bundled sample, evaluate before and after, write the report
  pack         the engine as a NuGet package, in out/packages; a sample program uses it
  bundle       one archive that runs without the SDK, in out/
TEXT
}

say() { printf '%s\n' "$*" >&2; }
die() { say "build.sh: $*"; exit 1; }

libstdcpp() { ldconfig -p | awk '/libstdc\+\+\.so\.6/ && /x86-64|aarch64/ { print $NF; exit }'; }

has_symbol() {
  local library
  library=$(libstdcpp)
  [ -n "$library" ] && grep -qa "$needed_symbol" "$library"
}

# The commands that bring a newer libstdc++6 to Debian 12. Priority 100: only what is asked for by name comes from the newer suite.
newer_libstdcpp() {
  cat <<TEXT
echo 'deb [signed-by=$2] $1 trixie main' > /etc/apt/sources.list.d/lriad-trixie.list
printf 'Package: *\nPin: release n=trixie\nPin-Priority: 100\n' > /etc/apt/preferences.d/lriad-trixie
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -t trixie --no-install-recommends libstdc++6
TEXT
}

setup() {
  command -v dotnet >/dev/null || die "the .NET SDK 10 is needed and not on the PATH: https://dotnet.microsoft.com/download/dotnet/10.0"
  local sdk
  sdk=$(dotnet --version) || die "the .NET SDK 10 or later is needed; installed are: $(dotnet --list-sdks | tr '\n' ' ')"
  [ "${sdk%%.*}" -ge 10 ] || die "the .NET SDK 10 or later is needed; this is $sdk: https://dotnet.microsoft.com/download/dotnet/10.0"
  if [ "$(uname -s)" != Linux ] || has_symbol; then
    return
  fi
  local mirror keyring commands
  is_debian || die "libtorch needs a libstdc++ with $needed_symbol (GCC 13 or later; Debian 13 and Ubuntu 24.04 have it); please install one."
  mirror=$(debian_mirror) && keyring=$(debian_keyring) || die "libtorch needs libstdc++6 from Debian 13 (trixie), but no Debian mirror is known to apt here (apt-get update first?)."
  commands=$(newer_libstdcpp "$mirror" "$keyring")
  if [ "$(id -u)" -ne 0 ]; then
    say "libtorch needs libstdc++6 from Debian 13. Please run as root:"
    say "$commands"
    exit 1
  fi
  say "installing libstdc++6 from Debian 13 ..."
  bash -euc "$commands" >/dev/null
  has_symbol || die "libstdc++6 was installed, but still lacks $needed_symbol."
}

build() {
  setup &&
  kernels "$@" &&
  dotnet build LrIad.sln -c "$configuration" --nologo -v quiet
}

# kernels here: without fetching what compiles them.
kernels() {
  local nvcc
  if ! command -v cmake >/dev/null || ! command -v make >/dev/null; then
    without_kernels "that takes cmake and make"
  elif ! nvcc=$(cmake/get-nvcc.sh "$@"); then
    without_kernels "that takes nvcc"
  else
    cmake -S cmake -B build/kernels -DNVCC="$nvcc" >/dev/null &&
    cmake --build build/kernels >&2
  fi
}

# Where kernels cannot be compiled the rest is built all the same, unless LRIAD_REQUIRE_KERNELS=1.
without_kernels() {
  if [ "${LRIAD_REQUIRE_KERNELS:-}" = 1 ]; then
    say "build.sh: the CUDA kernels must be compiled here (LRIAD_REQUIRE_KERNELS=1), and $1."
    return 1
  fi
  say "The CUDA kernels are not compiled ($1): going on without support for GPUs."
}

# Runs every test project and adds up what they say; the last line is the sum.
run_tests() {
  local level=${1:-} passed=0 failed=0 project program log status filter
  case "$level" in
    full) filter=() ;;
    "") filter=(--filter 'TestCategory!=Full') ;;
    *) usage; exit 2 ;;
  esac
  log=$(mktemp)
  build || { printf '0 passed, 1 failed\n'; exit 1; }
  for project in tests/*.Tests; do
    program=$project/bin/$configuration/net10.0/LrIad.$(basename "$project")
    status=0
    "$program" "${filter[@]}" 2>&1 | tee "$log" || status=$?
    passed=$((passed + $(count succeeded "$log")))
    failed=$((failed + $(count failed "$log")))
    # 8: the project has no test to run at this level.
    if [ "$status" -ne 0 ] && [ "$status" -ne 8 ] && [ "$(count failed "$log")" -eq 0 ]; then
      say "$project ended with status $status"
      failed=$((failed + 1))
    fi
  done
  rm -f "$log"
  printf '%d passed, %d failed\n' "$passed" "$failed"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}

# The test programs colour their summary where they think it is wanted (on CI, say): the colours are taken out before the words are looked at.
count() { sed 's/\x1b\[[0-9;]*m//g' "$2" | awk -v what="$1:" '$1 == what { n += $2 } END { print n + 0 }'; }

cli() { echo "src/Cli/bin/$configuration/net10.0/lriad-fast"; }

# The demo runs on the CPU: a gigabyte of compiler is not fetched for it.
demo() {
  build here
  "$(cli)" train --sample --out "out/demo-$(date +%Y%m%d-%H%M%S)" "$@"
}

# The engine's package, and a program that has nothing of this project but that.
pack() {
  setup
  kernels
  rm -rf out/packages
  dotnet pack src/Engine -c "$configuration" --nologo -v quiet -o out/packages
  dotnet run --project samples/engine -c "$configuration" -- samples/tiny-qwen2-vl samples/parts-mvtec/gear/test/crack/000.png gear
}

# The program and the tests of the GPU, for a host with a driver and the CUDA libraries but without the SDK. libtorch is large and only training needs it; a host
# with PyTorch has its own. What debuggers need, other garbage collectors, symbols, documentation and the test platform's coverage tools stay behind too.
bundle() {
  local folder=out/bundle/lriad-fast project
  setup
  kernels
  rm -rf out/bundle
  for project in src/Cli tests/Engine.Tests tests/Interop.Tests; do
    dotnet publish "$project" -c "$configuration" --nologo -v quiet --self-contained -o "$folder"
  done
  [ ! -f build/kernels/lriad.fatbin ] || [ -f "$folder/lriad.fatbin" ] || die "the kernels did not get into the bundle; remove src/*/obj and tests/*/obj and try again."
  (cd "$folder" && rm -rf libtorch*.so libc10*.so libgomp*.so* libaoti*.so libbackend*.so libjit*.so libnnapi*.so libshm.so libmscor*.so libclrgc*.so libcoreclrtrace*.so createdump *CodeCoverage* *.pdb *.xml ??/ ??-*/)
  XZ_OPT=-9 tar -C out/bundle -cJf out/lriad-fast.tar.xz lriad-fast
  say "out/lriad-fast.tar.xz: $(du -h out/lriad-fast.tar.xz | cut -f1)"
}

verb=${1:-}
[ $# -gt 0 ] && shift
case "$verb" in
  setup) setup ;;
  build) build ;;
  kernels) kernels ;;
  test) run_tests "$@" ;;
  demo) demo "$@" ;;
  pack) pack ;;
  bundle) bundle ;;
  *) usage; exit 2 ;;
esac

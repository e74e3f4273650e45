#!/usr/bin/env bash
# Everything there is to do with this project, by one verb each: setup build kernels test demo bundle.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

configuration=Release
needed_symbol=GLIBCXX_3.4.32
# Where ldconfig lies, which ordinary users of Debian do not have on their path.
PATH=$PATH:/usr/sbin:/sbin

usage() {
  cat <<TEXT
usage: ./build.sh VERB
  setup        fetch what this machine lacks (Debian 12: a newer libstdc++)
  build        build the solution
  kernels      compile the CUDA kernels, once there are any
  test [full]  build and run the tests; full adds the long ones
  demo         train on the bundled sample, evaluate before and after, write the report
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

# The archive this machine already installs Debian from, so that nothing new has to be reachable.
debian_mirror() {
  apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk '$1 == "Debian" && $2 == "bookworm" && $3 == "main" && !found { print $4; found = 1 }'
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
  local system mirror keyring commands
  system=$(. /etc/os-release; echo "${ID:-}")
  [ "$system" = debian ] || die "libtorch needs a libstdc++ with $needed_symbol (GCC 13 or later; Debian 13 and Ubuntu 24.04 have it); please install one."
  # Before its first update a machine knows no archive.
  [ -n "$(debian_mirror)" ] || [ "$(id -u)" -ne 0 ] || apt-get update -qq >&2
  mirror=$(debian_mirror)
  keyring=$(find /usr/share/keyrings -name 'debian-archive-keyring.*' | sort | head -n 1)
  [ -n "$mirror" ] && [ -n "$keyring" ] || die "libtorch needs libstdc++6 from Debian 13 (trixie), but no Debian mirror is known to apt here (apt-get update first?)."
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
  dotnet build LrIad.sln -c "$configuration" --nologo -v quiet
}

kernels() {
  if ls native/kernels/*.cu >/dev/null 2>&1; then
    cmake -S cmake -B build/kernels &&
    cmake --build build/kernels
  else
    say "no CUDA kernels in native/kernels yet: nothing to compile"
  fi
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
  { kernels && build; } || { printf '0 passed, 1 failed\n'; exit 1; }
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

demo() {
  build
  "$(cli)" train --sample --out "out/demo-$(date +%Y%m%d-%H%M%S)" "$@"
}

bundle() {
  setup
  rm -rf out/bundle
  dotnet publish src/Cli -c "$configuration" --nologo -v quiet --self-contained -o out/bundle/lriad-fast
  # libtorch is large and only training needs it; a host with PyTorch has its own.
  rm -f out/bundle/lriad-fast/libtorch*.so out/bundle/lriad-fast/libc10*.so out/bundle/lriad-fast/libgomp*.so*
  tar -C out/bundle -cJf out/lriad-fast.tar.xz lriad-fast
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
  bundle) bundle ;;
  *) usage; exit 2 ;;
esac

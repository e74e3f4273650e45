# What the scripts know about Debian; sourced by build.sh and get-nvcc.sh.

is_debian() { [ "$(. /etc/os-release 2>/dev/null && echo "${ID:-}")" = debian ]; }

# The archive this machine already installs Debian from, so that nothing new has to be reachable. Before its first update a machine knows none.
debian_mirror() {
  known_debian_mirror || { [ "$(id -u)" -eq 0 ] && apt-get update -qq >&2 && known_debian_mirror; }
}

known_debian_mirror() {
  apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk '$1 == "Debian" && ($2 == "bookworm" || $2 == "trixie") && $3 == "main" && !found { print $4; found = 1 } END { exit !found }'
}

debian_keyring() { find /usr/share/keyrings -name 'debian-archive-keyring.*' | sort | head -n 1 | grep .; }

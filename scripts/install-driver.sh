#!/usr/bin/env bash
# Makes sure that there is something to run shaders on: a Vulkan driver, or on macOS the system's own Metal.
# Where a Debian-like system has no driver, this installs Mesa's lavapipe, which runs on the CPU.
# Usage: scripts/install-driver.sh [--gl]     --gl: also want a GL driver, for the tests on the GL adapter
set -euo pipefail

want_gl=false
case "${1-}" in
'') ;;
--gl) want_gl=true ;;
-h | --help)
  echo 'usage: scripts/install-driver.sh [--gl]'
  exit 0
  ;;
*)
  echo 'usage: scripts/install-driver.sh [--gl]' >&2
  exit 2
  ;;
esac

say() { printf 'driver: %s\n' "$*"; }
fail() {
  say "$@" >&2
  exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

if ! has cargo; then
  say 'cargo was not found; install Rust with rustup, from https://rustup.rs, then run this again' >&2
  exit 1
fi

case "$(uname -s)" in
Darwin)
  say 'macOS has Metal; nothing to install'
  exit 0
  ;;
MINGW* | MSYS* | CYGWIN* | Windows*)
  say 'Windows has DirectX 12; nothing to install. For Vulkan, install the GPU vendor'"'"'s driver'
  exit 0
  ;;
esac

# Whether a shared library is known to the loader.
library() {
  local ldconfig
  ldconfig="$(PATH="$PATH:/sbin:/usr/sbin" command -v ldconfig || true)"
  if [ -n "$ldconfig" ] && grep -qF "$1 " <<<"$("$ldconfig" -p 2>/dev/null)"; then
    return 0
  fi
  local folder folders
  IFS=: read -r -a folders <<<"${LD_LIBRARY_PATH-}:/usr/lib:/usr/lib64:/usr/local/lib"
  for folder in "${folders[@]}"; do
    [ -n "$folder" ] && [ -e "$folder/$1" ] && return 0
  done
  return 1
}

# Whether a driver's description (an ICD file) is where the Vulkan loader looks.
icd() {
  local named="${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}" place places folders
  if [ -n "$named" ]; then
    # These variables replace the standard folders; they name files, or folders of files.
    IFS=: read -r -a places <<<"$named"
  else
    IFS=: read -r -a folders <<<"${XDG_CONFIG_DIRS:-/etc/xdg}:${XDG_DATA_DIRS:-/usr/local/share:/usr/share}"
    places=(
      "${folders[@]/%//vulkan/icd.d}" /etc/vulkan/icd.d /usr/local/etc/vulkan/icd.d
      /usr/local/share/vulkan/icd.d /usr/share/vulkan/icd.d "${XDG_DATA_HOME:-${HOME-}/.local/share}/vulkan/icd.d"
    )
  fi
  for place in "${places[@]}"; do
    [ -f "$place" ] && return 0
    compgen -G "$place/*.json" >/dev/null && return 0
  done
  return 1
}

vulkan() { library libvulkan.so.1 && icd; }
gl() { library libEGL.so.1 && { library libEGL_mesa.so.0 || library libEGL_nvidia.so.0; }; }

packages=()
vulkan || packages+=(libvulkan1 mesa-vulkan-drivers)
if $want_gl && ! gl; then packages+=(libegl1 libegl-mesa0 libgl1-mesa-dri); fi
if [ "${#packages[@]}" -eq 0 ]; then
  say 'found'
  exit 0
fi

say "missing: ${packages[*]}"
if ! has apt-get; then
  fail 'install a driver for your GPU, or one that runs on the CPU, then run this again:
  Fedora:  sudo dnf install vulkan-loader mesa-vulkan-drivers mesa-libEGL mesa-dri-drivers
  Arch:    sudo pacman -S vulkan-icd-loader vulkan-swrast mesa
  Alpine:  sudo apk add vulkan-loader mesa-vulkan-swrast mesa-egl mesa-dri-gallium
  macOS:   nothing to install, it has Metal
  Windows: nothing to install, it has DirectX 12'
fi

apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120)
if [ "$(id -u)" -ne 0 ]; then
  has sudo || fail "not root, and no sudo; have an administrator run: apt-get install ${packages[*]}"
  apt=(sudo "${apt[@]}")
fi
install_packages() { "${apt[@]}" install -y --no-install-recommends "${packages[@]}" </dev/null; }

say "installing with apt-get: ${packages[*]}"
if ! install_packages >/dev/null 2>&1; then
  # The package lists are missing or old.
  "${apt[@]}" update </dev/null || say 'apt-get update failed; trying with the lists there are'
  install_packages || fail "apt-get could not install ${packages[*]}; its message is above"
fi
vulkan || fail 'installed, but the Vulkan loader still finds no driver; see whether VK_DRIVER_FILES names a file that is not there'
if $want_gl && ! gl; then fail 'installed, but there is still no EGL library'; fi
say 'installed'

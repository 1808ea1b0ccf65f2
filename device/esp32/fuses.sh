#!/bin/sh
# Burns the fuses of an ESP32-S3 or ESP32-C3 that is to start nothing but what is signed with your keys.
#
#   fuses.sh plan     CHIP PROFILE
#   fuses.sh rehearse CHIP PROFILE DIGEST BACKUP FILE      on simulated fuses, which are kept in FILE
#   fuses.sh burn     CHIP PROFILE DIGEST BACKUP PORT      on the chip at PORT; asks before it begins. NO WAY BACK.
#
# DIGEST and BACKUP are digests of two public keys (`espsecure digest-sbv2-public-key`): 32 bytes each. The second key
# is for the day when the first has to go. FROM=N begins with step N, for one that was interrupted after N - 1.
#
# Profile development: secure boot, but cable and debugger stay. Profile release: both are closed as well. Flash the
# signed boot loader, partition table, application and NVS before: afterwards there is no cable any more. Flash
# encryption is not burnt here: the boot loader makes its key inside the chip at the first start, where nobody sees it.
set -eu

die() { printf 'fuses: %s\n' "$*" >&2; exit 1; }

action=${1:-} chip=${2:-} profile=${3:-} digest=${4:-} backup=${5:-} target=${6:-}
case $action in plan | rehearse | burn) ;; *) die 'say plan, rehearse or burn' ;; esac
case $chip in esp32s3 | esp32c3) ;; *) die "chip '$chip': esp32s3 or esp32c3; others have other fuses" ;; esac
case $profile in release | development) ;; *) die "profile '$profile': release or development" ;; esac

if [ "$action" != plan ]; then
    for file in "$digest" "$backup"; do
        [ -f "$file" ] || die "digest '$file': no such file"
        [ "$(wc -c <"$file")" -eq 32 ] || die "digest '$file': has not 32 bytes (espsecure digest-sbv2-public-key makes it)"
    done
    cmp -s "$digest" "$backup" && die 'the two digests are the same: the backup must be of another key'
    [ -n "$target" ] || die 'name the file of the simulated fuses, or the port of the chip'
fi

fuses() {
    case $action in
        rehearse) espefuse --chip "$chip" --virt --path-efuse-file "$target" --do-not-confirm "$@" ;;
        burn) espefuse --chip "$chip" --port "$target" --do-not-confirm "$@" ;;
    esac
}

number=0
# step WHAT COMMAND...: every one of them is irreversible
step() {
    number=$((number + 1))
    what=$1
    shift
    printf '%2d  %s\n        espefuse %s\n' "$number" "$what" "$*"
    if [ "$action" != plan ] && [ "$number" -ge "${FROM:-1}" ]; then
        output=$(fuses "$@" 2>&1) ||
            die "step $number failed, those before it are burnt: $(printf '%s\n' "$output" | tail -n 1)"
    fi
}

if [ "$action" = burn ]; then
    espefuse --chip "$chip" --port "$target" summary
    printf 'This cannot be undone. Type the name of the chip to burn the %s profile: ' "$profile"
    read -r answer
    [ "$answer" = "$chip" ] || die 'nothing was burnt'
fi

# The keys first: without them secure boot would start nothing at all. Digests stay readable, and are write-protected.
step 'digest of the key that signs' burn-key BLOCK_KEY4 "${digest:-DIGEST}" SECURE_BOOT_DIGEST0
step 'digest of the backup key' burn-key BLOCK_KEY5 "${backup:-BACKUP}" SECURE_BOOT_DIGEST1
step 'the third place for a key is closed, so that nobody else uses it' burn-efuse SECURE_BOOT_KEY_REVOKE2 1
step 'secure boot: from now on only signed images start' burn-efuse SECURE_BOOT_EN 1
if [ "$profile" = release ]; then
    step 'no debugger by software' burn-efuse SOFT_DIS_JTAG 7
    step 'no debugger at the pins' burn-efuse DIS_PAD_JTAG 1
    step 'no debugger over USB' burn-efuse DIS_USB_JTAG 1
    step 'no start from memory that is not checked' burn-efuse DIS_DIRECT_BOOT 1
    step 'the download mode sees no instruction cache' burn-efuse DIS_DOWNLOAD_ICACHE 1
    [ "$chip" = esp32c3 ] || step 'nor a data cache' burn-efuse DIS_DOWNLOAD_DCACHE 1
    step 'and encrypts nothing' burn-efuse DIS_DOWNLOAD_MANUAL_ENCRYPT 1
    # last: after it no fuse can be burnt by cable
    step 'no download mode: the cable is closed' burn-efuse DIS_DOWNLOAD_MODE 1
fi
case $action in
    plan) printf 'Every step is irreversible. Nothing was burnt.\n' ;;
    rehearse) printf 'On simulated fuses: nothing real was burnt.\n' ;;
    burn) printf 'Burnt. The first start encrypts the flash: leave it its power for a minute.\n' ;;
esac

#!/bin/sh
# Stands in for rustdoc in a doctest run: instead of running a crate's doctests, writes its public
# API into $PUBLIC_API_FOLDER as JSON, with the same flags and dependencies. Crates that are not
# published are skipped.
#
# RUSTC_BOOTSTRAP unlocks the unstable format on the stable toolchain. It is set for rustdoc alone:
# set for cargo, it would have the build scripts of many dependencies run again.
crate=
previous=
for argument; do
    shift
    if [ "$previous" = --crate-name ]; then
        crate=$argument
    fi
    previous=$argument
    if [ "$argument" != --test ]; then
        set -- "$@" "$argument"
    fi
done

case $crate in
    ssh_pool | ssh_pool_core) ;;
    *) exit 0 ;;
esac
RUSTC_BOOTSTRAP=1 exec rustdoc "$@" --cap-lints allow -Z unstable-options \
    --output-format json --document-hidden-items --out-dir "$PUBLIC_API_FOLDER"

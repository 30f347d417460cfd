//! The `ssh` that git and docker are given in tests: a test program cannot be it itself, for its
//! `main` is not its own.

fn main() {
    ssh_pool::git::run_shim_if_asked();
    eprintln!("this is for git and docker to run, in tests");
    std::process::exit(2);
}

//! What everything is called: comparisons fill a report with these names, and the tables, plots and
//! goals look for them.

/// Who is compared.
pub mod contender {
    /// Ours: every ratio is to this one.
    pub const SSH_POOL: &str = "ssh-pool";
    /// The `ssh` program with `ControlMaster=auto` and `ControlPersist`.
    pub const SSH_MUX: &str = "ssh, ControlMaster";
    /// The crate openssh, which runs `ssh` for each command.
    pub const OPENSSH_PROCESS: &str = "openssh, process-mux";
    /// The crate openssh, which speaks to the control socket itself.
    pub const OPENSSH_NATIVE: &str = "openssh, native-mux";
    /// The crate async-ssh2-tokio.
    pub const ASYNC_SSH2: &str = "async-ssh2-tokio";
    /// russh, with a channel for each command and nothing else.
    pub const RUSSH: &str = "bare russh";
    /// A new `ssh` for each command.
    pub const SSH: &str = "ssh";

    /// All of them, in the order in which they are shown.
    pub const ORDER: [&str; 7] = [
        SSH_POOL,
        SSH_MUX,
        OPENSSH_PROCESS,
        OPENSSH_NATIVE,
        ASYNC_SSH2,
        RUSSH,
        SSH,
    ];
}

/// What is done.
pub mod scenario {
    /// One command after the other over a connection that is there.
    pub const WARM: &str = "warm";
    /// Many commands at once.
    pub const BURST: &str = "burst";
    /// What a thousand commands cost the client.
    pub const COST: &str = "cost";
    /// A gigabyte.
    pub const BULK: &str = "bulk";
    /// From nothing to the first result.
    pub const COLD: &str = "cold";
    /// A hundred hosts at once.
    pub const FLEET: &str = "fleet";
    /// A thousand hosts, and ten thousand targets.
    pub const SCALE: &str = "scale";
}

/// Under which conditions.
pub mod setting {
    /// No delay.
    pub const DELAY_0: &str = "0 ms";
    /// 10 ms of round trip.
    pub const DELAY_10: &str = "10 ms";
    /// 40 ms of round trip.
    pub const DELAY_40: &str = "40 ms";
    /// 100 ms of round trip.
    pub const DELAY_100: &str = "100 ms";
    /// Nothing is connected yet.
    pub const COLD: &str = "cold";
    /// Connections are there.
    pub const WARM: &str = "warm";
    /// From the server, with the cipher that each contender chooses.
    pub const DOWN_DEFAULT: &str = "down, default cipher";
    /// To the server, with the cipher that each contender chooses.
    pub const UP_DEFAULT: &str = "up, default cipher";
    /// From the server, with one cipher for all.
    pub const DOWN_SAME: &str = "down, same cipher";
    /// To the server, with one cipher for all.
    pub const UP_SAME: &str = "up, same cipher";
    /// A thousand hosts, one command each, then nothing.
    pub const THOUSAND_HOSTS: &str = "1,000 hosts";
    /// A hundred hosts at work, and no others known.
    pub const HUNDRED_TARGETS: &str = "100 of 100 targets in use";
    /// A hundred hosts at work, and 9,900 known.
    pub const MANY_TARGETS: &str = "100 of 10,000 targets in use";
}

/// What is measured.
pub mod metric {
    /// Median latency, in ms.
    pub const P50: &str = "p50";
    /// In ms.
    pub const P90: &str = "p90";
    /// In ms.
    pub const P99: &str = "p99";
    /// From the first call to the last answer, in ms.
    pub const TIME: &str = "time";
    /// Commands without the right answer.
    pub const FAILURES: &str = "failures";
    /// Lines on standard error that nobody asked for.
    pub const NOISE: &str = "noise";
    /// Logins in the server's log.
    pub const LOGINS: &str = "logins";
    /// Seconds of processor time for a thousand commands, children included.
    pub const CPU: &str = "CPU";
    /// Processor time while nothing is to be done, in % of one core.
    pub const IDLE_CPU: &str = "idle CPU";
    /// Largest resident set, in MiB.
    pub const PEAK_MEMORY: &str = "peak memory";
    /// Resident set, in MiB.
    pub const MEMORY: &str = "memory";
    /// What is this process's alone of it, in MiB.
    pub const PRIVATE_MEMORY: &str = "private memory";
    /// What an idle connection adds, in KiB.
    pub const IDLE_CONNECTION: &str = "memory per idle connection";
    /// Resident set of an ssh master, in KiB.
    pub const MASTER: &str = "master";
    /// Throughput, in MB/s: the one metric where more is better.
    pub const RATE: &str = "rate";
    /// Round trips from nothing to the first result.
    pub const ROUND_TRIPS: &str = "round trips";
    /// Open file descriptors.
    pub const DESCRIPTORS: &str = "descriptors";
}

/// In which unit.
pub mod unit {
    /// Milliseconds.
    pub const MS: &str = "ms";
    /// Seconds.
    pub const S: &str = "s";
    /// A million bytes in a second.
    pub const RATE: &str = "MB/s";
    /// 1,024 bytes.
    pub const KIB: &str = "KiB";
    /// 1,024 KiB.
    pub const MIB: &str = "MiB";
    /// Hundredths of one core.
    pub const PERCENT: &str = "%";
    /// A count.
    pub const NONE: &str = "";
}

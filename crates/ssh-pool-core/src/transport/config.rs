//! How we speak SSH: identification, windows, keepalives.

use std::borrow::Cow;
use std::time::Duration;

use russh::client::GexParams;
use russh::keys::Algorithm;
use russh::{Preferred, SshId, client};

use super::Endpoint;
use super::algorithms::Proposal;
use super::offer::KexCost;
use crate::limits::Limits;
use crate::timeouts::Timeouts;

/// Bits of a group that the server chooses (RFC 8270: 2048 at least; ssh takes 2048 to 8192). 3072
/// are as strong as the 256 bits of a curve.
const GROUP_BITS: (usize, usize, usize) = (2048, 3072, 4096);

/// What this side says first, without the end of its line (RFC 4253, section 4.2).
pub(super) fn identification() -> Cow<'static, str> {
    match client::Config::default().client_id {
        SshId::Standard(id) => id,
        SshId::Raw(id) => Cow::Owned(id.trim_end().to_owned()),
    }
}

/// The configuration of one dial. `known` are the host key algorithms that the trust store knows
/// for this host: they come first, so that a server with several keys shows the known one.
pub(super) fn client_config(
    endpoint: &Endpoint,
    proposal: &Proposal,
    known: &[Algorithm],
    cost: KexCost,
) -> client::Config {
    let preferred = Preferred {
        kex: Cow::Owned(proposal.key_exchanges(cost == KexCost::Expensive)),
        key: Cow::Owned(proposal.host_keys(known)),
        cipher: Cow::Owned(proposal.ciphers.clone()),
        mac: Cow::Owned(proposal.macs.clone()),
        compression: Cow::Owned(proposal.compression.clone()),
        ..Preferred::DEFAULT
    };

    let default = client::Config::default();
    let (least, wanted, most) = GROUP_BITS;
    client::Config {
        client_id: SshId::Standard(identification()),
        preferred,
        // A test holds that these are in order, which is all that can be wrong with them.
        gex: GexParams::new(least, wanted, most).unwrap_or(default.gex),
        // Set on the socket before russh sees it; here for the record.
        nodelay: true,
        keepalive_interval: Some(endpoint.keepalive_interval),
        // No limit here: the socket itself notices silence, also while russh cannot.
        keepalive_max: 0,
        limits: rekey_limits(endpoint.rekey, endpoint.isolated),
        ..client::Config::default()
    }
}

/// When this side starts a key exchange. russh ends a connection if more than 4 MiB arrive between its
/// own KEXINIT and the server's, and several commands that write at once may have that much in flight.
/// With the default limits only the server starts one on a shared connection (sshd's `RekeyLimit`);
/// the connection is replaced after `Timeouts::lifetime`.
fn rekey_limits((bytes, interval): (usize, Duration), isolated: bool) -> russh::Limits {
    let (mut limit, mut time) = (bytes, interval);
    if !isolated && bytes >= Limits::default().rekey_bytes {
        limit = usize::MAX;
    }
    if !isolated && interval >= Timeouts::default().rekey {
        time = Duration::MAX;
    }
    russh::Limits {
        rekey_write_limit: limit,
        rekey_read_limit: limit,
        rekey_time_limit: time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_connection_leaves_new_keys_to_the_server_unless_less_is_asked_for() {
        let hour = Duration::from_secs(3600);
        let limits = |bytes, time, isolated| {
            let limits = rekey_limits((bytes, time), isolated);
            assert_eq!(limits.rekey_read_limit, limits.rekey_write_limit);
            (limits.rekey_read_limit, limits.rekey_time_limit)
        };
        assert_eq!(limits(1 << 30, hour, false), (usize::MAX, Duration::MAX));
        assert_eq!(limits(1 << 30, hour, true), (1 << 30, hour));
        assert_eq!(limits(1 << 20, hour / 2, false), (1 << 20, hour / 2));
    }

    #[test]
    fn groups_of_the_servers_choice_have_bounds() {
        let (least, wanted, most) = GROUP_BITS;
        GexParams::new(least, wanted, most).expect("in order");
    }
}

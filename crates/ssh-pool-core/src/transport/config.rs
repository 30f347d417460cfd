//! How we speak SSH: identification, windows, keepalives.

use std::borrow::Cow;

use russh::client::GexParams;
use russh::keys::Algorithm;
use russh::{Preferred, SshId, client};

use super::Endpoint;
use super::algorithms::Proposal;
use super::offer::KexCost;

/// Bits of a group that the server chooses (RFC 8270: 2048 at least; ssh takes 2048 to 8192). 3072
/// are as strong as the 256 bits of a curve.
const GROUP_BITS: (usize, usize, usize) = (2048, 3072, 4096);

/// How much a server may send on a channel before this side makes more room for it, in bytes.
///
/// It holds nobody back: this side takes in all that comes, and where a reader is slow that is limited
/// by other means. But russh ends a connection on which more than twice of this comes between its own
/// wish for new keys and the server's. All channels together may have sent that much by then: it is in
/// the buffers of the two sockets, 36 MiB on Linux (tcp_rmem and tcp_wmem, tcp(7)).
const WINDOW: u32 = 64 << 20;

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
        window_size: WINDOW,
        limits: russh::Limits {
            rekey_write_limit: endpoint.rekey.0,
            rekey_read_limit: endpoint.rekey.0,
            rekey_time_limit: endpoint.rekey.1,
        },
        ..client::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_the_servers_choice_have_bounds() {
        let (least, wanted, most) = GROUP_BITS;
        GexParams::new(least, wanted, most).expect("in order");
    }
}

//! What the name of a scripted server resolves to.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::sleep;

use super::super::happy_eyeballs::{self, Attempts};
use super::super::{AddressChoice, ConnectError};
use super::{Server, connection_refused};

impl Server {
    /// From now on its name resolves to these addresses; a TCP connection takes so long, and fails at
    /// once where that is `Duration::MAX`.
    pub(crate) fn resolve_to(&self, addresses: &[(SocketAddr, Duration)]) {
        self.state().addresses = addresses.to_vec();
    }

    /// Where commands were started since the last look.
    pub(crate) fn take_started_at(&self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.state().started_at)
    }

    /// `None`: its connections have no address.
    pub(super) async fn connect(
        &self,
        choice: &dyn AddressChoice,
    ) -> Result<Option<SocketAddr>, ConnectError> {
        let addresses = self.state().addresses.clone();
        if addresses.is_empty() {
            return Ok(None);
        }
        let resolved: Vec<_> = addresses.iter().map(|(address, _)| *address).collect();
        let open = async |address: SocketAddr| {
            let known = addresses.iter().find(|(known, _)| *known == address);
            match known {
                // It may have left the name, and still be there.
                None => sleep(Duration::from_millis(1)).await,
                Some((_, Duration::MAX)) => return Err(ErrorKind::ConnectionRefused.into()),
                Some((_, time)) => sleep(*time).await,
            }
            Ok(())
        };
        let connected =
            happy_eyeballs::connect(&resolved, choice, &Attempts::default(), open).await;
        match connected {
            Some((address, ())) => Ok(Some(address)),
            None => Err(connection_refused()),
        }
    }
}

//! A host with a Docker daemon.

use std::fs;

use ssh_pool::docker::Docker;
use ssh_pool::{Host, HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::{Dockerd, Dropbear, Proxy, Sshd};

use crate::{builder, known};

/// How one gets to it.
pub(crate) enum Server {
    Sshd(Sshd),
    Dropbear(Dropbear),
}

pub(crate) struct TestHost {
    pub(crate) docker: Docker,
    pub(crate) host: Host,
    pub(crate) pool: Pool,
    pub(crate) server: Server,
    pub(crate) dockerd: Dockerd,
}

impl TestHost {
    /// An sshd that opens streams to sockets.
    pub(crate) fn direct() -> Self {
        Self::with(Server::Sshd(Sshd::start()))
    }

    /// An sshd that does not.
    pub(crate) fn dial_stdio() -> Self {
        Self::with(Server::Sshd(strict()))
    }

    /// A server that cannot.
    pub(crate) fn dropbear() -> Self {
        Self::with(Server::Dropbear(Dropbear::start()))
    }

    pub(crate) fn with(server: Server) -> Self {
        let dockerd = Dockerd::start();
        let (pool, host) = match &server {
            Server::Sshd(sshd) => {
                let pool = builder(sshd, known(sshd)).build().unwrap();
                let host = pool.host(sshd.target()).unwrap();
                (pool, host)
            }
            Server::Dropbear(dropbear) => {
                let pool = Pool::builder(HostKeyPolicy::known_hosts_file(dropbear.known_hosts()))
                    .identity(Identity::key_file(dropbear.client_key()))
                    .build()
                    .unwrap();
                let host = pool.host(dropbear.target()).unwrap();
                (pool, host)
            }
        };
        Self {
            docker: Docker::at(&host, dockerd.socket()).unwrap(),
            host,
            pool,
            server,
            dockerd,
        }
    }

    /// The same daemon, through a proxy that can break connections.
    pub(crate) fn through_proxy(&self) -> (Proxy, Pool, Docker) {
        let Server::Sshd(sshd) = &self.server else {
            panic!("only in front of an sshd");
        };
        let proxy = Proxy::to(sshd.addr());
        let known = self.sshd().dir().join("proxy_known_hosts");
        fs::write(
            &known,
            proxy.known_hosts_line(&sshd.host_public_key("ed25519")),
        )
        .unwrap();
        let pool = builder(sshd, HostKeyPolicy::known_hosts_file(known))
            .build()
            .unwrap();
        let host = pool
            .host(format!("{}@{}", sshd.user(), proxy.addr()))
            .unwrap();
        let docker = Docker::at(&host, self.dockerd.socket()).unwrap();
        (proxy, pool, docker)
    }

    pub(crate) fn sshd(&self) -> &Sshd {
        match &self.server {
            Server::Sshd(sshd) => sshd,
            Server::Dropbear(_) => panic!("this is a dropbear"),
        }
    }

    /// How many processes of `docker system dial-stdio` run on the server.
    pub(crate) fn processes(&self) -> usize {
        let all = match &self.server {
            Server::Sshd(sshd) => sshd.session_processes(),
            Server::Dropbear(dropbear) => dropbear.session_processes(),
        };
        // The shell before it has the same words in its command line.
        let ours = |line: &str| line.starts_with("docker ") && line.ends_with("dial-stdio");
        all.iter().filter(|(_, line)| ours(line)).count()
    }
}

/// An sshd that opens no streams to sockets.
pub(crate) fn strict() -> Sshd {
    Sshd::builder()
        .option("AllowStreamLocalForwarding no")
        .start()
}

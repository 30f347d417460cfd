//! Two hosts of its own, each with an sshd and a Docker daemon, and an app in good versions and bad
//! ones.

use std::time::Duration;

use ssh_pool_examples::Fleet;
use ssh_pool_tests::{Dockerd, Repos, TempDir, TestUser};

use crate::app::App;
use crate::deploy::Place;
use crate::{limits, timeouts};

/// How much there is in a large repository, in bytes.
pub(crate) const BALLAST: usize = 64_000_000;

pub(crate) const NAME: &str = "shop";

/// A version of the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Version {
    /// Becomes healthy.
    Good,
    /// The same, with much in its repository.
    Large,
    /// Its program ends at once.
    Exits,
    /// Runs, and its check fails.
    Unhealthy,
    /// Runs, and has not been checked often enough when the time is up.
    Late,
    /// A step of its build fails.
    NoBuild,
    /// A step of its build does not end.
    LongBuild,
}

/// They end when this is dropped.
pub(crate) struct Demo {
    pub(crate) fleet: Fleet,
    pub(crate) daemons: Vec<Dockerd>,
    repos: Repos,
    mirrors: Vec<TempDir>,
    versions: u32,
}

impl Demo {
    /// Two hosts. Two daemons start nearly as quickly as one, and only so each host can fail alone.
    pub(crate) fn start() -> anyhow::Result<Self> {
        const HOSTS: usize = 2;
        let user = TestUser::plain();
        // They are near, so one that is not there is not waited for.
        let timeouts = timeouts().acquire(Duration::from_secs(5));
        let fleet = Fleet::private(HOSTS, limits(), timeouts)?;
        let daemons = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..HOSTS).map(|_| scope.spawn(Dockerd::start)).collect();
            let started = starting.into_iter().map(|one| match one.join() {
                Ok(dockerd) => dockerd,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            started.collect()
        });
        let repos = Repos::new(&user);
        repos.create(NAME, 0);
        let mirror = |_| {
            let mirror = TempDir::new();
            user.own(mirror.path());
            mirror
        };
        Ok(Self {
            fleet,
            daemons,
            repos,
            mirrors: (0..HOSTS).map(mirror).collect(),
            versions: 0,
        })
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        let hosts = self.fleet.members.iter().zip(&self.daemons);
        (hosts.zip(&self.mirrors))
            .map(|((member, daemon), mirror)| Place {
                member: member.clone(),
                socket: Some(daemon.socket()),
                dir: mirror.path().join("shop.git").display().to_string(),
            })
            .collect()
    }

    /// The app, of which there is nothing in the repository yet.
    pub(crate) fn app(&self) -> anyhow::Result<App> {
        let repo = self.repos.repo(NAME);
        let mut app = App::new(NAME, &repo.display().to_string(), "main")?;
        app.patience = Duration::from_secs(20);
        Ok(app)
    }

    /// Commits the next version, and gives its number, which is also in the image.
    pub(crate) fn commit(&mut self, version: Version) -> u32 {
        self.versions += 1;
        let number = self.versions;
        let (extra, retries, app) = match version {
            Version::Good | Version::Large => ("", 20, WELL),
            Version::Exits => ("", 20, EXITS),
            Version::Unhealthy => ("", 2, WAITS),
            Version::Late => ("", 10_000, WAITS),
            Version::NoBuild => (NO_STEP, 20, WELL),
            Version::LongBuild => (LONG_STEP, 20, WELL),
        };
        let dockerfile = format!(
            "FROM {}\n\
             COPY version app /srv/\n\
             {extra}\
             HEALTHCHECK --interval=200ms --timeout=5s --retries={retries} CMD cat /tmp/well\n\
             CMD [\"sh\", \"/srv/app\"]\n",
            Dockerd::IMAGE
        );
        let large = version == Version::Large;
        let ballast = "x".repeat(if large { BALLAST } else { 0 });
        let files = [
            ("Dockerfile", dockerfile.as_str()),
            ("app", app),
            ("version", &number.to_string()),
            ("ballast", &ballast),
        ];
        self.repos.commit(NAME, &files);
        number
    }
}

const NO_STEP: &str = "RUN echo compiling; echo no such header >&2; exit 9\n";
const LONG_STEP: &str = "RUN echo compiling; sleep 600\n";

const WELL: &str = r#"
trap 'echo bye; exit 0' TERM
echo "version $(cat /srv/version) begins"
echo yes > /tmp/well
sleep 3600 &
wait
"#;

const EXITS: &str = r#"
echo "version $(cat /srv/version) begins"
echo "no database" >&2
exit 7
"#;

/// Until somebody makes it well.
const WAITS: &str = r#"
trap 'exit 0' TERM
echo "version $(cat /srv/version) begins"
echo waiting
sleep 3600 &
wait
"#;

//! A runtime of its own for each server that lives inside the test process.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

const PATIENCE: Duration = Duration::from_secs(10);

/// A thread or more with a runtime. A fixture on it works whatever the runtime of the test does (one
/// thread, blocked, its clock paused), and none of its tasks outlives it.
#[derive(Debug)]
pub(crate) struct Background(Option<Runtime>);

impl Background {
    pub(crate) fn new(name: &str, threads: usize) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()
            .expect("start a runtime");
        Self(Some(runtime))
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(task);
        }
    }

    /// Runs something that makes sockets: they belong to this runtime.
    pub(crate) fn enter<T>(&self, make: impl FnOnce() -> T) -> T {
        let runtime = self.0.as_ref().expect("it runs until it is dropped");
        let _inside = runtime.enter();
        make()
    }
}

impl Drop for Background {
    /// Ends all tasks and waits for them.
    fn drop(&mut self) {
        let Some(runtime) = self.0.take() else { return };
        // From a thread that belongs to no runtime: inside one it is forbidden to wait.
        let ender = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE));
        let _ = ender.join();
    }
}

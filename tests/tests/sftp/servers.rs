//! The same on each server, of whichever maker.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use ssh_pool::sftp::{Error, FileType, Reason, Replace, Sftp, SftpExt};
use ssh_pool::{HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::{Dropbear, Release, SftpServer, Sshd, TempDir, TestUser, eventually_async};

use crate::{Place, SOON, counted, mode, names, noise, remote_folder, tree};

/// What a server does not do.
#[derive(Clone, Copy, Default)]
struct Lacks {
    /// `posix-rename@openssh.com`.
    replacing: bool,
    /// SETSTAT and FSETSTAT.
    attributes: bool,
    /// Links by themselves: it renames what they lead to, and says the whole path of that.
    links: bool,
}

/// Files, a tree and single operations, up and down.
async fn serves(sftp: &Sftp, lacks: Lacks) {
    let (local, remote) = (TempDir::new(), remote_folder());
    let here = |name: &str| local.path().join(name);
    let there = |name: &str| remote.path().join(name);
    let replace = match lacks.replacing {
        true => Replace::Aside,
        false => Replace::Atomic,
    };
    let bytes = noise((5 << 20) + 3, 1);
    fs::write(here("a"), &bytes).unwrap();
    // Twice: the second replaces the first.
    for round in 0..2 {
        let up = sftp.upload(here("a"), there("a")).verify(true).strict(true);
        up.replace(replace).await.unwrap();
        assert!(fs::read(there("a")).unwrap() == bytes, "round {round}");
        assert_eq!(mode(&there("a")), 0o644);
    }
    let again = sftp.write(there("a"), bytes.clone()).await;
    match again {
        Ok(()) => assert!(!lacks.replacing),
        Err(Error::NotAtomic { .. }) => assert!(lacks.replacing),
        Err(error) => panic!("{error}"),
    }
    let up = sftp.upload(here("a"), there("a")).replace(Replace::InPlace);
    up.verify(true).await.unwrap();
    let back = sftp.download(there("a"), here("back")).verify(true);
    back.times(true).await.unwrap();
    assert!(fs::read(here("back")).unwrap() == bytes);
    let times = |path: &Path| {
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        modified
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs()
    };
    assert_eq!(times(&here("back")), times(&there("a")));

    let resumed = sftp.upload(here("a"), there("resumed")).resume(true);
    resumed.await.unwrap();
    assert!(fs::read(there("resumed")).unwrap() == bytes);
    sftp.remove_file(there("resumed")).await.unwrap();

    trees(sftp, local.path(), remote.path(), lacks).await;
    links(sftp, local.path(), remote.path(), lacks).await;
    operations(sftp, &there("single"), lacks).await;
    refusals(sftp, local.path(), remote.path()).await;
    assert_eq!(names(remote.path()), ["a", "folder"]);
}

async fn trees(sftp: &Sftp, local: &Path, remote: &Path, lacks: Lacks) {
    let folder = local.join("folder");
    fs::create_dir_all(folder.join("sub/sub")).unwrap();
    for number in 0..50 {
        let name = format!("sub/{number}");
        fs::write(folder.join(name), noise(number as usize, number)).unwrap();
    }
    fs::write(folder.join("sub/sub/ä ö"), "a name").unwrap();
    std::os::unix::fs::symlink("sub/1", folder.join("link")).unwrap();
    let there = remote.join("folder");
    // The second time everything is replaced.
    for round in 0..2 {
        let up = sftp.upload_dir(&folder, &there).replace(Replace::Aside);
        let summary = up.await.unwrap();
        assert_eq!((summary.files, summary.symlinks), (51, 1));
        assert_eq!(summary.dirs, if round == 0 { 3 } else { 0 });
        assert!(summary.unset.is_empty() || lacks.attributes, "{summary:?}");
        assert_eq!(tree(&folder), tree(&there));
    }
    let back = local.join("folder back");
    let summary = sftp.download_dir(&there, &back).await.unwrap();
    assert_eq!((summary.files, summary.dirs), (51, 3));
    let mut wanted = tree(&folder);
    if lacks.links {
        // It says of every link that it leads to an absolute path.
        assert_eq!((summary.symlinks, summary.skipped.len()), (0, 1));
        wanted.remove("link");
    } else {
        assert_eq!((summary.symlinks, summary.skipped.len()), (1, 0));
    }
    assert_eq!(wanted, tree(&back));
}

/// Links and files in the place of links: what these lead to is left alone.
async fn links(sftp: &Sftp, local: &Path, remote: &Path, lacks: Lacks) {
    let folder = remote.join("links");
    sftp.create_dir(&folder).await.unwrap();
    sftp.write(folder.join("left alone"), "left alone")
        .await
        .unwrap();
    let (link, file) = (folder.join("link"), folder.join("file"));
    for path in [&link, &file] {
        sftp.symlink("left alone", path).await.unwrap();
    }
    let tree = local.join("links");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "new").unwrap();
    std::os::unix::fs::symlink("file", tree.join("link")).unwrap();
    let up = sftp.upload_dir(&tree, &folder).await;
    let in_one_step = !lacks.replacing && !lacks.links;
    match up {
        Ok(_) => assert!(in_one_step),
        Err(Error::NotAtomic { .. }) => assert!(!in_one_step),
        Err(error) => panic!("{error}"),
    }
    let up = sftp.upload_dir(&tree, &folder).replace(Replace::Aside);
    up.await.unwrap();
    assert_eq!(fs::read(folder.join("left alone")).unwrap(), b"left alone");
    assert_eq!(fs::read_link(&link).unwrap().to_str(), Some("file"));
    assert!(fs::symlink_metadata(&file).unwrap().is_file());
    assert_eq!(fs::read(&file).unwrap(), b"new");
    assert_eq!(names(&folder), ["file", "left alone", "link"]);
    for name in ["file", "left alone", "link"] {
        sftp.remove_file(folder.join(name)).await.unwrap();
    }
    sftp.remove_dir(&folder).await.unwrap();
}

async fn operations(sftp: &Sftp, folder: &Path, lacks: Lacks) {
    sftp.create_dir(folder).await.unwrap();
    let file = folder.join("file");
    sftp.write(&file, "text").await.unwrap();
    assert_eq!(sftp.read(&file).await.unwrap(), b"text");
    let metadata = sftp.metadata(&file).await.unwrap();
    assert_eq!((metadata.len(), metadata.file_type()), (4, FileType::File));
    match sftp.set_permissions(&file, 0o640).await {
        Ok(()) => assert!(!lacks.attributes && mode(&file) == 0o640),
        Err(error) => assert!(lacks.attributes, "{error}"),
    }
    sftp.symlink("file", folder.join("link")).await.unwrap();
    let link = folder.join("link");
    assert_eq!(fs::read_link(&link).unwrap().to_str(), Some("file"));
    let said = sftp.read_link(&link).await.unwrap();
    assert!(
        said == "file" || (lacks.links && Path::new(&said) == file),
        "{said}"
    );
    assert!(sftp.symlink_metadata(&link).await.unwrap().is_symlink());
    let moved = folder.join("moved");
    sftp.rename(&file, &moved).await.unwrap();
    assert_eq!(fs::read(&moved).unwrap(), b"text");
    let mut listed = sftp.read_dir(folder).await.unwrap();
    listed.sort_by(|a, b| a.file_name().cmp(b.file_name()));
    let listed: Vec<_> = listed.iter().map(|entry| entry.file_name()).collect();
    assert_eq!(listed, ["link", "moved"]);
    assert!(sftp.canonicalize(".").await.unwrap().starts_with('/'));
    sftp.remove_file(&link).await.unwrap();
    sftp.remove_file(&moved).await.unwrap();
    sftp.remove_dir(folder).await.unwrap();
}

async fn refusals(sftp: &Sftp, local: &Path, remote: &Path) {
    let error = sftp.metadata(remote.join("no")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NotFound), "{error}");
    let error = sftp.upload(local.join("a"), remote.join("folder")).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::WrongType { .. }), "{error}");
    let error = sftp.upload(local.join("a"), remote.join("no/a")).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Folder { .. }), "{error}");
    // A name that is too long: found out before anything is sent.
    let long = remote.join("n".repeat(300));
    let (progress, calls) = counted();
    let up = sftp.upload(local.join("a"), &long).progress(progress).await;
    let down = sftp.download(&long, local.join("no")).await;
    for error in [
        up.unwrap_err(),
        down.unwrap_err(),
        sftp.metadata(&long).await.unwrap_err(),
        sftp.create_dir(&long).await.unwrap_err(),
        sftp.rename(remote.join("a"), &long).await.unwrap_err(),
    ] {
        assert_eq!(error.reason(), Some(Reason::NameTooLong), "{error}");
        assert!(error.to_string().contains("names of 255 bytes"), "{error}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

/// Files below `folder` that these processes have open.
fn open_by(processes: &[u32], folder: &Path) -> usize {
    let open = processes.iter().flat_map(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        open.into_iter().flatten().flatten()
    });
    open.filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|path| path.starts_with(folder))
        .count()
}

/// More handles than a byte counts, one after the other and many at once, and none stays open.
async fn takes_any_handle(sftp: &Sftp, processes: impl Fn() -> Vec<u32>) {
    let folder = remote_folder();
    let file = |number: usize| folder.path().join(format!("{number}"));
    for round in 0..6 {
        let mut running = tokio::task::JoinSet::new();
        for number in 0..60 {
            let (sftp, path) = (sftp.clone(), file(number));
            running.spawn(async move {
                if round == 0 {
                    sftp.write(&path, format!("{number}")).await.unwrap();
                }
                let read = sftp.read(&path).await.unwrap();
                assert_eq!(read, format!("{number}").into_bytes());
                sftp.read_dir(path.parent().unwrap()).await.unwrap();
            });
        }
        running.join_all().await;
    }
    let closed = || open_by(&processes(), folder.path()) == 0;
    assert!(eventually_async(SOON, closed).await, "handles stay open");
}

async fn openssh(server: ssh_pool_tests::SshdBuilder, lacks: Lacks) {
    let place = Place::on(server).await;
    serves(&place.sftp, lacks).await;
    let processes = || {
        let processes = place.sshd.session_processes();
        processes.into_iter().map(|(pid, _)| pid).collect()
    };
    takes_any_handle(&place.sftp, processes).await;
}

/// A pool that logs in with this key, and its session.
async fn session(known_hosts: &Path, key: &Path, target: String) -> (Pool, Sftp) {
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(known_hosts))
        .identity(Identity::key_file(key))
        .build()
        .unwrap();
    let sftp = pool.host(target).unwrap().sftp().await.unwrap();
    (pool, sftp)
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_as_installed_serves_files() {
    openssh(Sshd::builder(), Lacks::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_10_serves_files() {
    let server = Sshd::builder().release(Release::Trixie);
    openssh(server, Lacks::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropbear_serves_files_with_the_sftp_server_of_openssh() {
    let dropbear = Dropbear::start();
    let known_hosts = dropbear.known_hosts();
    let logged_in = session(&known_hosts, dropbear.client_key(), dropbear.target());
    let (_pool, sftp) = logged_in.await;
    serves(&sftp, Lacks::default()).await;
    takes_any_handle(&sftp, || dropbear.children()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_run_no_command_is_verified_by_reading_back() {
    let server = Sshd::builder().option("ForceCommand internal-sftp");
    openssh(server.user(TestUser::plain()), Lacks::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_to_set_attributes_serves_files() {
    let server = Sshd::builder().option("Subsystem sftp internal-sftp -P setstat,fsetstat");
    let lacks = Lacks {
        attributes: true,
        ..Lacks::default()
    };
    openssh(server, lacks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_allows_no_more_than_is_needed_serves_files() {
    let allowed = "open,close,read,write,opendir,readdir,remove,mkdir,rmdir,realpath,stat,lstat,\
                   fstat,rename,readlink,symlink";
    let server = format!("Subsystem sftp internal-sftp -p {allowed}");
    let lacks = Lacks {
        replacing: true,
        attributes: true,
        ..Lacks::default()
    };
    openssh(Sshd::builder().option(server), lacks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncssh_serves_files_with_handles_that_are_no_text() {
    let server = SftpServer::asyncssh();
    let known_hosts = server.known_hosts();
    let logged_in = session(&known_hosts, server.client_key(), server.target());
    let (_pool, sftp) = logged_in.await;
    serves(&sftp, Lacks::default()).await;
    takes_any_handle(&sftp, || server.processes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proftpd_serves_files() {
    let server = SftpServer::proftpd();
    let known_hosts = server.known_hosts();
    let logged_in = session(&known_hosts, server.client_key(), server.target());
    let (_pool, sftp) = logged_in.await;
    let lacks = Lacks {
        links: true,
        ..Lacks::default()
    };
    serves(&sftp, lacks).await;
    takes_any_handle(&sftp, || server.processes()).await;
}

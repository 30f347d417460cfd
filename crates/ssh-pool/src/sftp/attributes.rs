//! Mode, owner and time of a remote file: set where the server allows it, and else said.

use super::error::Error;
use super::options::Call;
use super::session::{Attributes, Fault, Handle, metadata};
use super::summary::{Attribute, Unset, UnsetReason};

/// What is to be set of a copy.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings {
    pub(super) mode: Option<u32>,
    /// User and group.
    pub(super) owner: Option<(u32, u32)>,
    /// Of the last change, in seconds since 1970.
    pub(super) modified: Option<i64>,
}

impl Settings {
    pub(super) fn mode(mode: u32) -> Self {
        Self {
            mode: Some(mode),
            ..Self::default()
        }
    }
}

/// What could not be set, and why.
pub(super) type Lacking = (Attribute, UnsetReason);

/// Sets what is wanted of an open file that is at `path`.
pub(super) async fn settle(
    handle: &Handle,
    path: &str,
    wanted: &Settings,
) -> Result<Vec<Lacking>, Fault> {
    let mut lacking = Vec::new();
    let time = wanted.modified.map(u32::try_from);
    if matches!(time, Some(Err(_))) {
        lacking.push((Attribute::Modified, UnsetReason::OutOfRange));
    }
    let mode = Attributes {
        mode: wanted.mode,
        ..Attributes::default()
    };
    let times = Attributes {
        times: time.and_then(Result::ok).map(|time| (time, time)),
        ..Attributes::default()
    };
    let owned = async {
        match wanted.owner {
            Some(owner) => own(handle, path, owner).await,
            None => Ok(None),
        }
    };
    let rest = async {
        let both = Attributes {
            mode: mode.mode,
            ..times
        };
        if both == Attributes::default() {
            return Ok(Vec::new());
        }
        match handle.set(&both).await {
            Err(Fault::Refused(..)) => {}
            set => return set.map(|()| Vec::new()),
        }
        // One of them may be what is refused.
        let mut lacking = Vec::new();
        for (attribute, one) in [(Attribute::Mode, mode), (Attribute::Modified, times)] {
            if one != Attributes::default()
                && let Some(refusal) = set_one(handle, path, &one).await?
            {
                lacking.push((attribute, UnsetReason::Refused(refusal)));
            }
        }
        Ok(lacking)
    };
    let (owned, rest) = tokio::join!(owned, rest);
    lacking.extend(owned?.map(|refusal| (Attribute::Owner, UnsetReason::Refused(refusal))));
    lacking.extend(rest?);
    Ok(lacking)
}

/// Gives the file to its owner, or to the group alone; the refusal, if it is another one now.
async fn own(handle: &Handle, path: &str, owner: (u32, u32)) -> Result<Option<String>, Fault> {
    let by = |owner| Attributes {
        owner: Some(owner),
        ..Attributes::default()
    };
    let refusal = set_one(handle, path, &by(owner)).await?;
    if refusal.is_some()
        && let Ok(found) = handle.stat().await
        && let Some((user, group)) = found.owner
        && group != owner.1
    {
        // That of a group that the account is in.
        set_one(handle, path, &by((user, owner.1))).await?;
    }
    Ok(refusal)
}

/// By handle, then by path: some servers know one of the two. `None`: it is as wanted.
async fn set_one(
    handle: &Handle,
    path: &str,
    wanted: &Attributes,
) -> Result<Option<String>, Fault> {
    match handle.set(wanted).await {
        Err(Fault::Refused(..)) => {}
        set => return set.map(|()| None),
    }
    let refusal = match handle.session().set(path, wanted).await {
        Err(Fault::Refused(reason, message)) => format!("{reason} (\"{message}\")"),
        set => return set.map(|()| None),
    };
    match handle.stat().await {
        Ok(found) => {
            let wanted = metadata(*wanted);
            let mode = wanted.permissions();
            let same = mode.is_none_or(|mode| found.permissions() == Some(mode))
                && wanted.owner.is_none_or(|owner| found.owner == Some(owner))
                && (wanted.modified.is_none() || found.modified == wanted.modified);
            Ok(Some(refusal).filter(|_| !same))
        }
        Err(Fault::Refused(..)) => Ok(Some(refusal)),
        Err(fault) => Err(fault),
    }
}

/// What a copy lacks, for the summary; an error, if it is to be strict.
pub(super) fn lacking(
    call: &Call,
    place: &std::sync::Arc<str>,
    path: &std::path::Path,
    lacking: Vec<Lacking>,
) -> Result<Vec<Unset>, Error> {
    let mut all = lacking.into_iter().map(|(attribute, reason)| Unset {
        path: path.to_owned(),
        attribute,
        reason,
    });
    if !call.options.strict {
        return Ok(all.collect());
    }
    match all.next() {
        None => Ok(Vec::new()),
        Some(Unset {
            path,
            attribute,
            reason,
        }) => Err(Error::Unset {
            place: place.clone(),
            path,
            attribute,
            reason,
        }),
    }
}

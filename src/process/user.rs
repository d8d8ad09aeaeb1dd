//! Giving up root: `-u` and `-g`. Names are looked up at the start, so that a wrong one is told
//! before anything is bound; the switch comes after binding and before the first packet is read.

use std::ffi::CString;

use super::Failure;
use crate::sys::{self, Key};

/// Leaves an id as it is.
const KEEP: u32 = u32::MAX;

/// Who to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id; `None` when only a group was asked for.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: u32,
    /// The user's name, for the supplementary groups; an id without an account has none.
    name: Option<CString>,
}

impl Identity {
    /// Looks up a user and a group, each a name or a number. `None` when neither is asked for.
    pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<Identity>, Failure> {
        let group = group.map(find_group).transpose()?;
        let Some(user) = user else {
            return Ok(group.map(|gid| Identity {
                uid: None,
                gid,
                name: None,
            }));
        };
        let (uid, name, own_group) = find_user(user)?;
        let gid = group.or(own_group).ok_or_else(|| {
            Failure(format!(
                "user id {user} has no account; give it a group with -g"
            ))
        })?;
        Ok(Some(Identity {
            uid: Some(uid),
            gid,
            name,
        }))
    }

    /// Becomes this user and group for good. An error means that we must not go on.
    pub fn assume(&self) -> Result<(), Failure> {
        if self.is_current() {
            return no_new_privileges();
        }
        if sys::effective_uid() != 0 {
            let why = "only root can switch user or group; start as root, or without -u and -g";
            return Err(Failure(why.to_string()));
        }
        let fail = |what: &str, error| Failure(format!("cannot {what}: {error}"));
        match &self.name {
            Some(name) => sys::set_groups_of(name, self.gid),
            None => sys::set_only_group(self.gid),
        }
        .map_err(|error| fail("set the supplementary groups", error))?;
        let gid = self.gid;
        sys::set_gids(gid, gid, gid).map_err(|e| fail(&format!("become group {gid}"), e))?;
        if let Some(uid) = self.uid {
            sys::set_uids(uid, uid, uid).map_err(|e| fail(&format!("become user {uid}"), e))?;
        }
        self.check_no_way_back()?;
        no_new_privileges()
    }

    /// Someone else (start-stop-daemon, systemd) has switched already.
    fn is_current(&self) -> bool {
        let user = self
            .uid
            .is_none_or(|uid| sys::get_uids().is_ok_and(|ids| ids == [uid; 3]));
        let group = sys::get_gids().is_ok_and(|ids| ids == [self.gid; 3]);
        // Root itself is never "already there": its supplementary groups may be anyone's.
        user && group && sys::effective_uid() != 0
    }

    /// Tries what must fail: a saved id, or a capability kept by whoever started us, would let
    /// an intruder be root again.
    fn check_no_way_back(&self) -> Result<(), Failure> {
        let Some(uid) = self.uid.filter(|uid| *uid != 0) else {
            return Ok(());
        };
        let changed = sys::get_uids().is_ok_and(|ids| ids == [uid; 3])
            && sys::get_gids().is_ok_and(|ids| ids == [self.gid; 3]);
        let user = sys::set_uids(0, 0, 0).is_ok() || sys::set_uids(KEEP, 0, KEEP).is_ok();
        let group = self.gid != 0 && sys::set_gids(KEEP, 0, KEEP).is_ok();
        if !changed || user || group {
            let why = "the switch of user can be undone (capabilities kept?); refusing to run";
            return Err(Failure(why.to_string()));
        }
        Ok(())
    }
}

fn no_new_privileges() -> Result<(), Failure> {
    sys::set_no_new_privileges()
        .map_err(|error| Failure(format!("cannot renounce set-uid: {error}")))
}

type Found = (u32, Option<CString>, Option<u32>);

fn find_user(user: &str) -> Result<Found, Failure> {
    let unknown = || Failure(format!("there is no user {user:?}"));
    let fail = |error| Failure(format!("cannot look up user {user:?}: {error}"));
    let name = CString::new(user).map_err(|_| unknown())?;
    if let Some(account) = sys::find_user(Key::Name(&name)).map_err(fail)? {
        return Ok((account.uid, Some(account.name), Some(account.gid)));
    }
    let uid = number(user).ok_or_else(unknown)?;
    Ok(match sys::find_user(Key::Id(uid)).map_err(fail)? {
        Some(account) => (uid, Some(account.name), Some(account.gid)),
        None => (uid, None, None),
    })
}

fn find_group(group: &str) -> Result<u32, Failure> {
    let unknown = || Failure(format!("there is no group {group:?}"));
    let fail = |error| Failure(format!("cannot look up group {group:?}: {error}"));
    let name = CString::new(group).map_err(|_| unknown())?;
    match sys::find_group(&name).map_err(fail)? {
        Some(gid) => Ok(gid),
        None => number(group).ok_or_else(unknown),
    }
}

/// An id in digits; the highest means "leave it" to the system, and `+5` is none.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != KEEP)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<(Option<u32>, u32)>, String> {
        let found = Identity::find(user, group).map_err(|failure| failure.to_string())?;
        Ok(found.map(|identity| (identity.uid, identity.gid)))
    }

    #[test]
    fn names_and_numbers_are_found() {
        assert_eq!(find(None, None), Ok(None));
        assert_eq!(find(Some("root"), None), Ok(Some((Some(0), 0))));
        assert_eq!(find(Some("0"), None), Ok(Some((Some(0), 0))));
        assert_eq!(find(Some("root"), Some("4242")), Ok(Some((Some(0), 4242))));
        assert_eq!(find(None, Some("root")), Ok(Some((None, 0))));
        assert_eq!(
            find(Some("4242424"), Some("0")),
            Ok(Some((Some(4242424), 0)))
        );
        assert_eq!(
            Identity::find(Some("0"), None)
                .unwrap()
                .unwrap()
                .name
                .unwrap(),
            *c"root"
        );
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let cases = [
            (
                Some("no-such-user"),
                None,
                "there is no user \"no-such-user\"",
            ),
            (Some("a\0b"), None, "there is no user"),
            (Some("-1"), None, "there is no user"),
            (Some("+0"), None, "there is no user"),
            (Some(""), None, "there is no user"),
            (Some("4294967295"), None, "there is no user"),
            (Some("4242424"), None, "give it a group with -g"),
            (
                None,
                Some("no-such-group"),
                "there is no group \"no-such-group\"",
            ),
        ];
        for (user, group, message) in cases {
            let found = find(user, group).unwrap_err();
            assert!(found.contains(message), "{found}");
        }
    }
}

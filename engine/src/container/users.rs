//! Users and groups by the container's own /etc/passwd and /etc/group. The host's are never asked.

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::container::failure::{AtStep, LaunchError};
use crate::container::plan::ExactIdentity;
use crate::container::rootfs;

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one among them: without it a process could escape a rule that denies
    /// its group something (CVE-2022-36109).
    pub(crate) groups: Vec<u32>,
    /// Its home directory.
    pub(crate) home: String,
}

/// A line of /etc/passwd, `name:password:uid:gid:comment:home:shell` (passwd(5)).
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// A line of /etc/group, `name:password:gid:members` (group(5)).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

/// No image needs more, and no image may make the engine read for ever.
const LIMIT: usize = 16 << 20;

/// Looks `user[:group]` and further groups up in the files below this root.
pub(crate) fn look_up(root: BorrowedFd<'_>, user: &str, further: &[String]) -> Result<Identity, LaunchError> {
    let passwd = read(root, "/etc/passwd")?;
    let group = read(root, "/etc/group")?;
    identity(user, further, &passwd, &group)
}

/// What these numbers mean: nothing is looked up but the home directory.
pub(crate) fn of_numbers(root: BorrowedFd<'_>, exact: &ExactIdentity) -> Result<Identity, LaunchError> {
    let passwd = read(root, "/etc/passwd")?;
    let line = passwd.lines().filter_map(parse_user).find(|user| user.uid == exact.uid);
    let home = line.map(|user| user.home).filter(|home| !home.is_empty()).unwrap_or("/");
    Ok(Identity { uid: exact.uid, gid: exact.gid, groups: exact.groups.clone(), home: home.to_owned() })
}

/// What `user[:group]` means by these files. Numbers need no line in them; names do.
fn identity(wanted: &str, further: &[String], passwd: &str, group: &str) -> Result<Identity, LaunchError> {
    let (user_word, group_word) = wanted.split_once(':').unwrap_or((wanted, ""));
    let user_word = if user_word.is_empty() { "0" } else { user_word };
    let number = number(user_word)?;
    let line = passwd.lines().filter_map(parse_user).find(|user| match number {
        Some(uid) => user.uid == uid,
        None => user.name == user_word,
    });
    let missing = || {
        LaunchError::Invalid(format!("unable to find user {user_word}: no matching entries in passwd file"))
    };
    let uid = line.as_ref().map(|user| user.uid).or(number).ok_or_else(missing)?;
    let groups: Vec<Group<'_>> = group.lines().filter_map(parse_group).collect();
    let gid = match group_word {
        "" => line.as_ref().map_or(0, |user| user.gid),
        word => group_number(word, &groups)?,
    };
    let mut all = vec![gid];
    if let (Some(user), "") = (&line, group_word) {
        let joined = groups.iter().filter(|group| group.members.contains(&user.name));
        all.extend(joined.map(|group| group.gid));
    }
    for word in further {
        all.push(group_number(word, &groups)?);
    }
    all.sort_unstable();
    all.dedup();
    let home = line.map(|user| user.home).filter(|home| !home.is_empty()).unwrap_or("/");
    Ok(Identity { uid, gid, groups: all, home: home.to_owned() })
}

fn group_number(word: &str, groups: &[Group<'_>]) -> Result<u32, LaunchError> {
    let number = number(word)?;
    let known = groups.iter().find(|group| group.name == word || Some(group.gid) == number);
    known.map(|group| group.gid).or(number).ok_or_else(|| {
        LaunchError::Invalid(format!("unable to find group {word}: no matching entries in group file"))
    })
}

/// The number a word is, if it is one. Those the kernel takes for "none" or negative are refused (CVE-2024-40635).
fn number(word: &str) -> Result<Option<u32>, LaunchError> {
    let digits = word.strip_prefix('-').unwrap_or(word);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match word.parse::<u32>() {
        Ok(number) if number <= i32::MAX as u32 => Ok(Some(number)),
        _ => Err(LaunchError::Invalid(format!("user and group ids range from 0 to {}: {word}", i32::MAX))),
    }
}

fn parse_user(line: &str) -> Option<User<'_>> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(User { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
}

fn parse_group(line: &str) -> Option<Group<'_>> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = fields.nth(1)?.parse().ok()?;
    let members = fields.next().unwrap_or_default().split(',').collect();
    Some(Group { name, gid, members })
}

/// The file's text; empty when there is none. Only a regular file is read: a pipe would keep us waiting for ever
/// (CVE-2024-9676).
fn read(root: BorrowedFd<'_>, path: &str) -> Result<String, LaunchError> {
    let file = match rootfs::open(root, Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NXIO) => return Ok(String::new()),
        other => other.at("open", path)?,
    };
    let stat = rustix::fs::fstat(&file).at("inspect", path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(LaunchError::Invalid(format!("{path} of the image is no regular file")));
    }
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        let count = rustix::io::read(&file, &mut chunk).at("read", path)?;
        bytes.extend_from_slice(&chunk[..count]);
        if count == 0 {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        if bytes.len() > LIMIT {
            return Err(LaunchError::Invalid(format!("{path} of the image is larger than {LIMIT} bytes")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# remark\nweb:x:33:33::/var/www:\nlast:x:70:70:::\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\naudio:x:29:web,other\nmail:x:8:web\n";

    fn groups(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn names_and_numbers_are_looked_up_as_in_docker() {
        for (wanted, further, uid, gid, all, home) in [
            ("", "", 0, 0, vec![0], "/root"),
            ("root", "", 0, 0, vec![0], "/root"),
            ("web", "", 33, 33, vec![8, 29, 33], "/var/www"),
            ("33", "", 33, 33, vec![8, 29, 33], "/var/www"),
            ("web:audio", "", 33, 29, vec![29], "/var/www"),
            ("1000", "", 1000, 0, vec![0], "/"),
            ("1000:1001", "", 1000, 1001, vec![1001], "/"),
            ("1000:1001", "mail 7", 1000, 1001, vec![7, 8, 1001], "/"),
            (":audio", "", 0, 29, vec![29], "/root"),
            ("last", "", 70, 70, vec![70], "/"),
        ] {
            let found = identity(wanted, &groups(further), PASSWD, GROUP).unwrap();
            assert_eq!(found, Identity { uid, gid, groups: all, home: home.to_owned() }, "{wanted}");
        }
    }

    #[test]
    fn what_is_in_neither_file_and_no_number_is_refused() {
        for (wanted, further, message) in [
            ("nobody", "", "unable to find user nobody: no matching entries in passwd file"),
            ("web:nope", "", "unable to find group nope: no matching entries in group file"),
            ("web", "nope", "unable to find group nope: no matching entries in group file"),
            ("2147483648", "", "user and group ids range from 0 to 2147483647: 2147483648"),
            ("-1", "", "user and group ids range from 0 to 2147483647: -1"),
        ] {
            let error = identity(wanted, &groups(further), PASSWD, GROUP).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}

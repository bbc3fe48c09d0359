//! Names to numbers with the image's own passwd and group files.

use std::io;

use super::copy::Owner;
use super::stack::Stack;

/// Why a `--chown` or `USER` means nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnerError {
    /// The passwd file lacks it.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    /// The group file lacks it.
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
    /// The system refused.
    #[error("read the image's passwd and group files: {0}")]
    Io(#[from] io::Error),
}

/// The owner that `user[:group]` names. A number alone is user and group; a name's group is its own in passwd.
pub(crate) fn find(text: &str, stack: &Stack) -> Result<Owner, OwnerError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let (uid, primary) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => {
            let passwd = stack.read("/etc/passwd")?.unwrap_or_default();
            let fields = line_of(&passwd, user).ok_or_else(|| OwnerError::User(user.to_owned()))?;
            let number = |at: usize| fields.get(at).and_then(|field| field.parse().ok());
            number(2).zip(number(3)).ok_or_else(|| OwnerError::User(user.to_owned()))?
        }
    };
    let gid = match group {
        None => primary,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => {
                let file = stack.read("/etc/group")?.unwrap_or_default();
                line_of(&file, group)
                    .and_then(|fields| fields.get(2).and_then(|field| field.parse().ok()))
                    .ok_or_else(|| OwnerError::Group(group.to_owned()))?
            }
        },
    };
    Ok(Owner { uid, gid })
}

fn line_of<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    file.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.first() == Some(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_image_and_unknown_ones_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("etc")).unwrap();
        std::fs::write(temp.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/:/bin/sh\n")
            .unwrap();
        std::fs::write(temp.path().join("etc/group"), "root:x:0:\nstaff:x:50:web\n").unwrap();
        let stack = Stack::of(vec![temp.path().to_owned()]);
        for (text, uid, gid) in
            [("5", 5, 5), ("web", 33, 44), ("web:staff", 33, 50), ("7:8", 7, 8), ("0:staff", 0, 50)]
        {
            assert_eq!(find(text, &stack).unwrap(), Owner { uid, gid }, "{text}");
        }
        let error = find("nobody", &stack).unwrap_err();
        assert_eq!(error.to_string(), "unable to find user nobody: no matching entries in passwd file");
        assert!(find("web:nobody", &stack).is_err());
    }
}

//! File transfer servers: ProFTPD, Pure-FTPd, wu-ftpd and what answers to `ftpd`.

use crate::decode::program::phrase::{Voice, failure, silent, success};

pub const VOICES: &[Voice] = &[PROFTPD, PURE_FTPD, FTPD];

const PROFTPD: Voice = Voice {
    programs: &["proftpd"],
    service: "proftpd",
    phrases: &[
        failure("[{ip}]){any}USER {user}: no such user found"),
        failure("[{ip}]){any}USER {user} (Login failed)"),
        failure("[{ip}]){any}USER {user} (Login failed): "),
        failure("[{ip}]){any}Maximum login attempts"),
        failure("[{ip}]){any}SECURITY VIOLATION: {user} login attempted"),
        failure("[{ip}]){any}SECURITY VIOLATION"),
        failure("({any} [{ip}]){any}no such user"),
        failure("[{ip}]) {any}no such user {user}"),
        success("[{ip}]){any}USER {user}: Login successful"),
        silent("[{ip}]){any}FTP session "),
    ],
};

const PURE_FTPD: Voice = Voice {
    programs: &["pure-ftpd"],
    service: "pure-ftpd",
    phrases: &[
        failure("@{host}) [WARNING] Authentication failed for user [{user}]"),
        failure("@{any}[{ip}]) [WARNING] Authentication failed for user [{user}]"),
        failure("@{host}) [WARNING] Authentication failed for user {user}"),
        failure("@{host}) [ERROR] Too many authentication failures"),
        failure("@{host}) [WARNING] "),
        success("@{host}) [INFO] {user} is now logged in"),
    ],
};

const FTPD: Voice = Voice {
    programs: &[
        "ftpd",
        "wu-ftpd",
        "in.ftpd",
        "wuftpd",
        "gssftpd",
        "lukemftpd",
    ],
    service: "ftpd",
    phrases: &[
        failure("repeated login failures from {ip}"),
        failure("repeated login failures from {any}[{ip}]"),
        failure("failed login from {any}[{ip}]"),
        failure("FTP LOGIN FAILED FROM {host}"),
        failure("FTP LOGIN REFUSED {any}FROM {any}[{ip}]"),
        success("FTP LOGIN FROM {any}[{ip}], {user}$"),
    ],
};

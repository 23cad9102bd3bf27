//! Names of what is read from packets, in a block of their own: the list before it may grow without moving these.

use crate::event::field::FieldId;

/// Where the block begins; the places before it belong to the list in `field.rs`.
pub const FIRST: u16 = 256;

// any protocol, Zeek's names
/// Address of the side that began.
pub const ORIG_H: FieldId = at(0);
/// Port of the side that began.
pub const ORIG_P: FieldId = at(1);
/// Address of the side that answered.
pub const RESP_H: FieldId = at(2);
/// Port of the side that answered.
pub const RESP_P: FieldId = at(3);
/// `tcp`, `udp`, `icmp`.
pub const PROTO: FieldId = at(4);
/// Of the protocol, as each names it: `1.1`, `TLSv12`, `2` ….
pub const VERSION: FieldId = at(5);
/// The account that a session logs in to.
pub const NET_USER: FieldId = at(6);
/// The account of an HTTP or NTLM login; never with its password.
pub const USERNAME: FieldId = at(7);
/// Whether the other side said yes.
pub const SUCCESS: FieldId = at(8);
/// What the other side said, by the protocol's own name.
pub const STATUS: FieldId = at(9);
/// A session's command, upper case.
pub const COMMAND: FieldId = at(10);
/// What a command was given; never a password.
pub const ARG: FieldId = at(11);
/// What a database was asked to do: `login`, `query` ….
pub const CMD: FieldId = at(12);
/// Three digits of an FTP or SMTP answer.
pub const REPLY_CODE: FieldId = at(13);
/// The text of an FTP answer.
pub const REPLY_MSG: FieldId = at(14);
/// `true` when the secret of a login could be read on the wire.
pub const CLEAR_TEXT: FieldId = at(15);
/// What was wrong in a packet or a message, of a closed set of texts.
pub const ANOMALY: FieldId = at(16);

// DNS
/// As `rcode`, by Zeek's name.
pub const RCODE_NAME: FieldId = at(17);
/// Whether the server refused to answer.
pub const REJECTED: FieldId = at(18);
/// The reserved bits, 0 to 7.
pub const DNS_Z: FieldId = at(19);
/// Authoritative answer.
pub const DNS_AA: FieldId = at(20);
/// Truncated.
pub const DNS_TC: FieldId = at(21);
/// Recursion desired.
pub const DNS_RD: FieldId = at(22);
/// Recursion available.
pub const DNS_RA: FieldId = at(23);
/// Of the message.
pub const TRANS_ID: FieldId = at(24);
/// `C_INTERNET` ….
pub const QCLASS_NAME: FieldId = at(25);
/// The answers, by Sysmon's name.
pub const QUERY_RESULTS: FieldId = at(26);

// HTTP
/// Of the request.
pub const METHOD: FieldId = at(27);
/// Of the request's Host header, without the port.
pub const HOST: FieldId = at(28);
/// The target as sent.
pub const URI: FieldId = at(29);
/// Of HTTP and mail.
pub const USER_AGENT: FieldId = at(30);
/// As sent.
pub const REFERRER: FieldId = at(31);
/// Three digits.
pub const STATUS_CODE: FieldId = at(32);
/// The reason beside the status.
pub const STATUS_MSG: FieldId = at(33);
/// By the first bytes of the body, else by its header.
pub const RESP_MIME_TYPES: FieldId = at(34);
/// Bytes, where the header says.
pub const REQUEST_BODY_LEN: FieldId = at(35);
/// Bytes, where the header says.
pub const RESPONSE_BODY_LEN: FieldId = at(36);
/// Upper case, in order.
pub const CLIENT_HEADER_NAMES: FieldId = at(37);
/// Headers that a proxy adds, `NAME -> value`.
pub const PROXIED: FieldId = at(38);
/// The target as sent, by the name of some proxies' logs.
pub const CS_URI: FieldId = at(39);
/// What stands behind the path's last dot.
pub const C_URI_EXTENSION: FieldId = at(40);
/// What stands behind the question mark.
pub const C_URI_QUERY: FieldId = at(41);
/// The Cookie header.
pub const CS_COOKIE: FieldId = at(42);
/// Of the request's body.
pub const CS_CONTENT_TYPE: FieldId = at(43);

// TLS and QUIC
/// SNI.
pub const SERVER_NAME: FieldId = at(44);
/// By the IANA registry's name.
pub const CIPHER: FieldId = at(45);
/// The group of the key exchange.
pub const CURVE: FieldId = at(46);
/// ALPN that the server chose.
pub const NEXT_PROTOCOL: FieldId = at(47);
/// Each ALPN that the client offered.
pub const ALPN: FieldId = at(48);
/// MD5 of the client's hello.
pub const JA3: FieldId = at(49);
/// MD5 of the server's hello.
pub const JA3S: FieldId = at(50);
/// FoxIO's JA4 of the client's hello.
pub const JA4: FieldId = at(51);
/// Whether an earlier session was taken up.
pub const RESUMED: FieldId = at(52);
/// Whether the handshake reached encrypted data.
pub const ESTABLISHED: FieldId = at(53);
/// By the IANA registry's name.
pub const LAST_ALERT: FieldId = at(54);
/// Of the server's certificate.
pub const SUBJECT: FieldId = at(55);
/// Of the server's certificate.
pub const ISSUER: FieldId = at(56);
/// Of the client's certificate.
pub const CLIENT_SUBJECT: FieldId = at(57);
/// SHA-256 of the certificate, lower case hex.
pub const FINGERPRINT: FieldId = at(58);
/// 1 to 3.
pub const CERT_VERSION: FieldId = at(59);
/// Upper case hex.
pub const CERT_SERIAL: FieldId = at(60);
/// RFC 4514, last part first.
pub const CERT_SUBJECT: FieldId = at(61);
/// RFC 4514, last part first.
pub const CERT_ISSUER: FieldId = at(62);
/// Seconds since 1970.
pub const CERT_NOT_BEFORE: FieldId = at(63);
/// Seconds since 1970.
pub const CERT_NOT_AFTER: FieldId = at(64);
/// By OpenSSL's name.
pub const CERT_KEY_ALG: FieldId = at(65);
/// By OpenSSL's name.
pub const CERT_SIG_ALG: FieldId = at(66);
/// `rsa`, `ecdsa`, `dsa`.
pub const CERT_KEY_TYPE: FieldId = at(67);
/// Bits.
pub const CERT_KEY_LENGTH: FieldId = at(68);
/// Whether subject and issuer are equal.
pub const CERT_SELF_SIGNED: FieldId = at(69);
/// Whether it had ended when it was seen.
pub const CERT_EXPIRED: FieldId = at(70);
/// Whether it had not begun when it was seen.
pub const CERT_NOT_YET: FieldId = at(71);
/// From its beginning to its end.
pub const CERT_DAYS: FieldId = at(72);
/// Whether it names the host that was asked for.
pub const CERT_MATCHES: FieldId = at(73);
/// Each name that it stands for.
pub const SAN_DNS: FieldId = at(74);
/// Whether the server showed it first.
pub const HOST_CERT: FieldId = at(75);
/// Whether the client showed it.
pub const CLIENT_CERT: FieldId = at(76);
/// The first ALPN that a QUIC client offers.
pub const CLIENT_PROTOCOL: FieldId = at(77);

// SSH
/// The client's identification line; of Kerberos, name and realm.
pub const CLIENT: FieldId = at(78);
/// The server's identification line.
pub const SERVER: FieldId = at(79);
/// To the server.
pub const CIPHER_ALG: FieldId = at(80);
/// To the server.
pub const MAC_ALG: FieldId = at(81);
/// To the server.
pub const COMPRESSION_ALG: FieldId = at(82);
/// Of the key exchange.
pub const KEX_ALG: FieldId = at(83);
/// Of the server's key.
pub const HOST_KEY_ALG: FieldId = at(84);
/// MD5 of what the client offers.
pub const HASSH: FieldId = at(85);
/// MD5 of what the server offers.
pub const HASSH_SERVER: FieldId = at(86);

// SMB, NTLM, DCE/RPC, Kerberos, RDP
/// `SMB 3.1.1` ….
pub const DIALECT: FieldId = at(87);
/// The share, `\\host\share`.
pub const PATH: FieldId = at(88);
/// `DISK`, `PIPE`, `PRINT`.
pub const SHARE_TYPE: FieldId = at(89);
/// Of a file, below the share.
pub const NAME: FieldId = at(90);
/// The computer that logs in, as it calls itself.
pub const HOSTNAME: FieldId = at(91);
/// Of the account.
pub const DOMAINNAME: FieldId = at(92);
/// As an SMB1 client calls its system.
pub const NATIVE_OS: FieldId = at(93);
/// As an SMB1 client calls its network software.
pub const NATIVE_LM: FieldId = at(94);
/// That calls go through.
pub const NAMED_PIPE: FieldId = at(95);
/// The interface called: `svcctl`, `drsuapi` ….
pub const ENDPOINT: FieldId = at(96);
/// The call: `CreateServiceW` …; of ARP `request`, `reply`.
pub const OPERATION: FieldId = at(97);
/// `AS` or `TGS`.
pub const REQUEST_TYPE: FieldId = at(98);
/// The principal that a ticket is for.
pub const NET_SERVICE: FieldId = at(99);
/// By Kerberos' name: `KDC_ERR_PREAUTH_FAILED` ….
pub const ERROR_MSG: FieldId = at(100);
/// An RDP client's `mstshash`.
pub const COOKIE: FieldId = at(101);
/// RDP: `RDP`, `SSL`, `HYBRID` ….
pub const SECURITY_PROTOCOL: FieldId = at(102);
/// RDP: `Success`, or why the server refuses.
pub const RESULT: FieldId = at(103);
/// RDP: the client's computer.
pub const CLIENT_NAME: FieldId = at(104);
/// RDP: its number.
pub const KEYBOARD_LAYOUT: FieldId = at(105);
/// RDP: of the client's software.
pub const CLIENT_BUILD: FieldId = at(106);

// mail
/// What the client calls itself.
pub const HELO: FieldId = at(107);
/// Envelope.
pub const MAIL_FROM: FieldId = at(108);
/// Envelope, each.
pub const RCPT_TO: FieldId = at(109);
/// Of the mail itself.
pub const MAIL_HEADER_FROM: FieldId = at(110);
/// Of the mail itself.
pub const MAIL_HEADER_TO: FieldId = at(111);
/// Code and text.
pub const LAST_REPLY: FieldId = at(112);
/// Whether the session went on encrypted.
pub const NET_TLS: FieldId = at(113);

// databases
/// That the client asks for.
pub const DATABASE: FieldId = at(114);
/// As the client calls its program.
pub const CLIENT_APPLICATION: FieldId = at(115);
/// That were changed or sent.
pub const ROWS: FieldId = at(116);
/// What the server said when it refused.
pub const RESPONSE: FieldId = at(117);

// hosts and network
/// Of the client, `00:11:22:33:44:55`.
pub const MAC: FieldId = at(118);
/// As a DHCP client calls itself.
pub const HOST_NAME: FieldId = at(119);
/// As a DHCP client calls itself, in full.
pub const CLIENT_FQDN: FieldId = at(120);
/// That a DHCP server gives.
pub const DOMAIN: FieldId = at(121);
/// `DISCOVER`, `ACK` ….
pub const MSG_TYPES: FieldId = at(122);
/// That a DHCP client has.
pub const CLIENT_ADDR: FieldId = at(123);
/// That a DHCP server gives.
pub const ASSIGNED_ADDR: FieldId = at(124);
/// Of the DHCP server.
pub const SERVER_ADDR: FieldId = at(125);
/// That a DHCP client asks for.
pub const REQUESTED_ADDR: FieldId = at(126);
/// Seconds.
pub const LEASE_TIME: FieldId = at(127);
/// DHCP's vendor class.
pub const CLIENT_SOFTWARE: FieldId = at(128);
/// Each router that a DHCP server names.
pub const ROUTERS: FieldId = at(129);
/// Each resolver that a DHCP server names.
pub const DNS_SERVERS: FieldId = at(130);
/// Of the frame or of ARP's sender.
pub const ORIG_MAC: FieldId = at(131);
/// Of the frame or of ARP's target.
pub const RESP_MAC: FieldId = at(132);
/// Number.
pub const ICMP_TYPE: FieldId = at(133);
/// Number.
pub const ICMP_CODE: FieldId = at(134);
/// NTP's, 1 to 7.
pub const NET_MODE: FieldId = at(135);
/// NTP's.
pub const STRATUM: FieldId = at(136);
/// Where an NTP server has its time from.
pub const REF_ID: FieldId = at(137);
/// Whether SNMP used `public` or `private`; the community itself is a secret.
pub const COMMUNITY_DEFAULT: FieldId = at(138);
/// SNMP: `get_request` ….
pub const PDU_TYPE: FieldId = at(139);
/// Of an echo's data.
pub const CALL_BYTES: FieldId = at(140);

/// Every constant above with its name, in order.
pub const NAMES: &[(FieldId, &str)] = &[
    (ORIG_H, "id.orig_h"),
    (ORIG_P, "id.orig_p"),
    (RESP_H, "id.resp_h"),
    (RESP_P, "id.resp_p"),
    (PROTO, "proto"),
    (VERSION, "version"),
    (NET_USER, "user"),
    (USERNAME, "username"),
    (SUCCESS, "success"),
    (STATUS, "status"),
    (COMMAND, "command"),
    (ARG, "arg"),
    (CMD, "cmd"),
    (REPLY_CODE, "reply_code"),
    (REPLY_MSG, "reply_msg"),
    (CLEAR_TEXT, "CredentialsInClear"),
    (ANOMALY, "Anomaly"),
    (RCODE_NAME, "rcode_name"),
    (REJECTED, "rejected"),
    (DNS_Z, "Z"),
    (DNS_AA, "AA"),
    (DNS_TC, "TC"),
    (DNS_RD, "RD"),
    (DNS_RA, "RA"),
    (TRANS_ID, "trans_id"),
    (QCLASS_NAME, "qclass_name"),
    (QUERY_RESULTS, "QueryResults"),
    (METHOD, "method"),
    (HOST, "host"),
    (URI, "uri"),
    (USER_AGENT, "user_agent"),
    (REFERRER, "referrer"),
    (STATUS_CODE, "status_code"),
    (STATUS_MSG, "status_msg"),
    (RESP_MIME_TYPES, "resp_mime_types"),
    (REQUEST_BODY_LEN, "request_body_len"),
    (RESPONSE_BODY_LEN, "response_body_len"),
    (CLIENT_HEADER_NAMES, "client_header_names"),
    (PROXIED, "proxied"),
    (CS_URI, "cs-uri"),
    (C_URI_EXTENSION, "c-uri-extension"),
    (C_URI_QUERY, "c-uri-query"),
    (CS_COOKIE, "cs-cookie"),
    (CS_CONTENT_TYPE, "cs-content-type"),
    (SERVER_NAME, "server_name"),
    (CIPHER, "cipher"),
    (CURVE, "curve"),
    (NEXT_PROTOCOL, "next_protocol"),
    (ALPN, "ClientAlpn"),
    (JA3, "ja3"),
    (JA3S, "ja3s"),
    (JA4, "ja4"),
    (RESUMED, "resumed"),
    (ESTABLISHED, "established"),
    (LAST_ALERT, "last_alert"),
    (SUBJECT, "subject"),
    (ISSUER, "issuer"),
    (CLIENT_SUBJECT, "client_subject"),
    (FINGERPRINT, "fingerprint"),
    (CERT_VERSION, "certificate.version"),
    (CERT_SERIAL, "certificate.serial"),
    (CERT_SUBJECT, "certificate.subject"),
    (CERT_ISSUER, "certificate.issuer"),
    (CERT_NOT_BEFORE, "certificate.not_valid_before"),
    (CERT_NOT_AFTER, "certificate.not_valid_after"),
    (CERT_KEY_ALG, "certificate.key_alg"),
    (CERT_SIG_ALG, "certificate.sig_alg"),
    (CERT_KEY_TYPE, "certificate.key_type"),
    (CERT_KEY_LENGTH, "certificate.key_length"),
    (CERT_SELF_SIGNED, "CertificateSelfSigned"),
    (CERT_EXPIRED, "CertificateExpired"),
    (CERT_NOT_YET, "CertificateNotYetValid"),
    (CERT_DAYS, "CertificateDays"),
    (CERT_MATCHES, "CertificateMatchesName"),
    (SAN_DNS, "san.dns"),
    (HOST_CERT, "host_cert"),
    (CLIENT_CERT, "client_cert"),
    (CLIENT_PROTOCOL, "client_protocol"),
    (CLIENT, "client"),
    (SERVER, "server"),
    (CIPHER_ALG, "cipher_alg"),
    (MAC_ALG, "mac_alg"),
    (COMPRESSION_ALG, "compression_alg"),
    (KEX_ALG, "kex_alg"),
    (HOST_KEY_ALG, "host_key_alg"),
    (HASSH, "hassh"),
    (HASSH_SERVER, "hasshServer"),
    (DIALECT, "dialect"),
    (PATH, "path"),
    (SHARE_TYPE, "share_type"),
    (NAME, "name"),
    (HOSTNAME, "hostname"),
    (DOMAINNAME, "domainname"),
    (NATIVE_OS, "native_os"),
    (NATIVE_LM, "native_lm"),
    (NAMED_PIPE, "named_pipe"),
    (ENDPOINT, "endpoint"),
    (OPERATION, "operation"),
    (REQUEST_TYPE, "request_type"),
    (NET_SERVICE, "service"),
    (ERROR_MSG, "error_msg"),
    (COOKIE, "cookie"),
    (SECURITY_PROTOCOL, "security_protocol"),
    (RESULT, "result"),
    (CLIENT_NAME, "client_name"),
    (KEYBOARD_LAYOUT, "keyboard_layout"),
    (CLIENT_BUILD, "client_build"),
    (HELO, "helo"),
    (MAIL_FROM, "mailfrom"),
    (RCPT_TO, "rcptto"),
    (MAIL_HEADER_FROM, "from"),
    (MAIL_HEADER_TO, "to"),
    (LAST_REPLY, "last_reply"),
    (NET_TLS, "tls"),
    (DATABASE, "DatabaseName"),
    (CLIENT_APPLICATION, "ClientApplication"),
    (ROWS, "rows"),
    (RESPONSE, "response"),
    (MAC, "mac"),
    (HOST_NAME, "host_name"),
    (CLIENT_FQDN, "client_fqdn"),
    (DOMAIN, "domain"),
    (MSG_TYPES, "msg_types"),
    (CLIENT_ADDR, "client_addr"),
    (ASSIGNED_ADDR, "assigned_addr"),
    (SERVER_ADDR, "server_addr"),
    (REQUESTED_ADDR, "requested_addr"),
    (LEASE_TIME, "lease_time"),
    (CLIENT_SOFTWARE, "client_software"),
    (ROUTERS, "Routers"),
    (DNS_SERVERS, "DnsServers"),
    (ORIG_MAC, "SourceMac"),
    (RESP_MAC, "DestinationMac"),
    (ICMP_TYPE, "itype"),
    (ICMP_CODE, "icode"),
    (NET_MODE, "mode"),
    (STRATUM, "stratum"),
    (REF_ID, "ref_id"),
    (COMMUNITY_DEFAULT, "CommunityDefault"),
    (PDU_TYPE, "pdu_type"),
    (CALL_BYTES, "PayloadBytes"),
];

const fn at(place: u16) -> FieldId {
    FieldId(FIRST + place)
}

//! Windows events, from EVTX or as shippers send them: their names to Sigma's, their channel and number to log sources.
//! The one place for both.

use std::borrow::Cow;

use crate::event::field::{self, Fields};
use crate::event::logsource::LogSources;
use crate::event::{Event, Value};

/// Paths of joined JSON keys behind which an event's own fields stand: EVTX, Winlogbeat, Fluent Bit.
const DATA: [&str; 5] = [
    "Event.EventData.",
    "winlog.event_data.",
    "winlog.user_data.",
    "EventData.",
    "UserData.",
];
/// The same of Wazuh's, whose names begin with a small letter.
const DATA_SMALL: [&str; 2] = ["data.win.eventdata.", "win.eventdata."];
/// Behind it stands the name of a schema, then the fields.
const USER_DATA: &str = "Event.UserData.";

/// What each shipper calls the parts of the head.
const HEAD: &[(&str, &str)] = &[
    ("Event.System.EventID", "EventID"),
    ("Event.System.EventID.#text", "EventID"),
    ("Event.System.Channel", "Channel"),
    ("Event.System.Computer", "Computer"),
    ("Event.System.Level", "Level"),
    ("Event.System.Task", "Task"),
    ("Event.System.Opcode", "Opcode"),
    ("Event.System.Keywords", "Keywords"),
    ("Event.System.EventRecordID", "EventRecordID"),
    ("Event.System.Provider.#attributes.Name", "Provider_Name"),
    ("Event.System.Security.#attributes.UserID", "UserID"),
    (
        "Event.System.TimeCreated.#attributes.SystemTime",
        "TimeCreated",
    ),
    ("Event.EventData.Data.#text", "Data"),
    // Winlogbeat
    ("winlog.event_id", "EventID"),
    ("winlog.channel", "Channel"),
    ("winlog.computer_name", "Computer"),
    ("winlog.provider_name", "Provider_Name"),
    ("winlog.task", "Task"),
    ("winlog.opcode", "Opcode"),
    ("winlog.keywords", "Keywords"),
    ("winlog.record_id", "EventRecordID"),
    ("winlog.user.identifier", "UserID"),
    // Wazuh
    ("data.win.system.eventID", "EventID"),
    ("data.win.system.channel", "Channel"),
    ("data.win.system.computer", "Computer"),
    ("data.win.system.providerName", "Provider_Name"),
    ("data.win.system.systemTime", "TimeCreated"),
    ("win.system.eventID", "EventID"),
    ("win.system.channel", "Channel"),
    ("win.system.computer", "Computer"),
    ("win.system.providerName", "Provider_Name"),
    ("win.system.systemTime", "TimeCreated"),
    // NXLog and Fluent Bit write flat events; these names are theirs.
    ("ProviderName", "Provider_Name"),
    ("StringInserts", "Data"),
];

/// Returns Sigma's name of what stands at a path of joined keys; `None` when the path is no Windows event's.
pub fn name(path: &str) -> Option<Cow<'_, str>> {
    if let Some((_, name)) = HEAD.iter().find(|(known, _)| *known == path) {
        return Some(Cow::Borrowed(name));
    }
    for prefix in DATA {
        if let Some(name) = path.strip_prefix(prefix) {
            return Some(bare(name));
        }
    }
    for prefix in DATA_SMALL {
        if let Some(name) = path.strip_prefix(prefix) {
            return Some(capital(name));
        }
    }
    let own = path
        .strip_prefix(USER_DATA)
        .and_then(|path| path.split_once('.'));
    match own {
        Some((_, name)) => Some(bare(name)),
        None => (path.contains(' ') && !path.contains('.')).then(|| bare(path)),
    }
}

/// Defender writes `Threat Name` where rules ask for `ThreatName`.
fn bare(name: &str) -> Cow<'_, str> {
    if name.contains(' ') {
        Cow::Owned(name.replace(' ', ""))
    } else {
        Cow::Borrowed(name)
    }
}

fn capital(name: &str) -> Cow<'_, str> {
    let mut letters = name.chars();
    match letters.next() {
        Some(first) if first.is_ascii_lowercase() => {
            let mut name = String::from(first.to_ascii_uppercase());
            name.push_str(letters.as_str());
            Cow::Owned(name)
        }
        _ => Cow::Borrowed(name),
    }
}

/// Security 4688 says in other words what process creation says: the public mapping of rules renames them.
const STARTED: &[(&str, &str)] = &[
    ("NewProcessName", "Image"),
    ("ParentProcessName", "ParentImage"),
    ("SubjectUserName", "User"),
    ("SubjectLogonId", "LogonId"),
    ("MandatoryLabel", "IntegrityLevel"),
];

/// Gives an event that has a channel and a number, but no log source, those of Windows.
pub fn know(event: &mut Event<'_>, fields: &Fields) {
    let text = |id| event.get(id).map(Value::text);
    let (Some(channel), Some(number)) = (text(field::CHANNEL), text(field::EVENT_ID)) else {
        return;
    };
    let (Ok(channel), Ok(number)) = (str::from_utf8(&channel), str::from_utf8(&number)) else {
        return;
    };
    let Ok(number) = number.trim().parse() else {
        return;
    };
    let kind = text(field::EVENT_TYPE);
    let kind = kind.as_deref().and_then(|kind| str::from_utf8(kind).ok());
    let logsources = logsources(channel, number, kind);
    if number == 4688
        && logsources
            .services
            .iter()
            .any(|service| service == "security")
    {
        rename_started(event, fields);
    }
    event.logsources = logsources;
}

fn rename_started(event: &mut Event<'_>, fields: &Fields) {
    for (name, also) in STARTED {
        let (Some(from), Some(to)) = (fields.get(name), fields.get(also)) else {
            continue;
        };
        if let Some(value) = event.get(from).cloned()
            && !event.has(to)
        {
            event.set(to, value);
        }
    }
}

const SYSMON: &str = "Microsoft-Windows-Sysmon/Operational";

/// Channels with the service that rules name them by.
const SERVICES: &[(&str, &str)] = &[
    ("Application", "application"),
    ("Security", "security"),
    ("System", "system"),
    (SYSMON, "sysmon"),
    ("Microsoft-Windows-PowerShell/Operational", "powershell"),
    ("PowerShellCore/Operational", "powershell"),
    ("Windows PowerShell", "powershell-classic"),
    (
        "Microsoft-Windows-TaskScheduler/Operational",
        "taskscheduler",
    ),
    ("Microsoft-Windows-WMI-Activity/Operational", "wmi"),
    ("DNS Server", "dns-server"),
    ("Microsoft-Windows-DNS-Server/Audit", "dns-server-audit"),
    (
        "Microsoft-Windows-DNS-Server/Analytical",
        "dns-server-analytic",
    ),
    (
        "Microsoft-Windows-DNS Client Events/Operational",
        "dns-client",
    ),
    (
        "Microsoft-Windows-DriverFrameworks-UserMode/Operational",
        "driver-framework",
    ),
    ("Microsoft-Windows-NTLM/Operational", "ntlm"),
    ("Microsoft-Windows-DHCP-Server/Operational", "dhcp"),
    ("MSExchange Management", "msexchange-management"),
    ("Microsoft-Windows-PrintService/Admin", "printservice-admin"),
    (
        "Microsoft-Windows-PrintService/Operational",
        "printservice-operational",
    ),
    (
        "Microsoft-Windows-TerminalServices-LocalSessionManager/Operational",
        "terminalservices-localsessionmanager",
    ),
    ("Microsoft-Windows-SmbClient/Security", "smbclient-security"),
    (
        "Microsoft-Windows-SmbClient/Connectivity",
        "smbclient-connectivity",
    ),
    ("Microsoft-Windows-SMBServer/Security", "smbserver-security"),
    (
        "Microsoft-Windows-CodeIntegrity/Operational",
        "codeintegrity-operational",
    ),
    ("Microsoft-Windows-Bits-Client/Operational", "bits-client"),
    ("Microsoft-Windows-AppLocker/MSI and Script", "applocker"),
    ("Microsoft-Windows-AppLocker/EXE and DLL", "applocker"),
    (
        "Microsoft-Windows-AppLocker/Packaged app-Deployment",
        "applocker",
    ),
    (
        "Microsoft-Windows-AppLocker/Packaged app-Execution",
        "applocker",
    ),
    (
        "Microsoft-Windows-Windows Firewall With Advanced Security/Firewall",
        "firewall-as",
    ),
    ("Microsoft-Windows-LDAP-Client/Debug", "ldap"),
    ("OpenSSH/Operational", "openssh"),
    ("Microsoft-Windows-Shell-Core/Operational", "shell-core"),
    (
        "Microsoft-Windows-Security-Mitigations/Kernel Mode",
        "security-mitigations",
    ),
    (
        "Microsoft-Windows-Security-Mitigations/User Mode",
        "security-mitigations",
    ),
    (
        "Microsoft-Windows-Windows Defender/Operational",
        "windefend",
    ),
    (
        "Microsoft-Windows-Diagnosis-Scripted/Operational",
        "diagnosis-scripted",
    ),
    ("Microsoft-Windows-VHDMP-Operational", "vhdmp"),
    (
        "Microsoft-Windows-AppXDeploymentServer/Operational",
        "appxdeployment-server",
    ),
    (
        "Microsoft-Windows-AppxPackaging/Operational",
        "appxpackaging-om",
    ),
    (
        "Microsoft-Windows-AppModel-Runtime/Admin",
        "appmodel-runtime",
    ),
    ("Microsoft-Windows-LSA/Operational", "lsa-server"),
    ("Microsoft-Windows-CAPI2/Operational", "capi2"),
    (
        "Microsoft-Windows-CertificateServicesClient-Lifecycle-System/Operational",
        "certificateservicesclient-lifecycle-system",
    ),
    (
        "Microsoft-IIS-Configuration/Operational",
        "iis-configuration",
    ),
    ("Microsoft-Windows-SENSE/Operational", "sense"),
    ("Microsoft-Windows-Hyper-V-Worker-Admin", "hyper-v-worker"),
    (
        "Microsoft-Windows-Kernel-EventTracing/Admin",
        "kernel-event-tracing",
    ),
    (
        "Microsoft-Windows-Kernel-ShimEngine/Operational",
        "kernel-shimengine",
    ),
    (
        "Microsoft-ServiceBus-Client/Admin",
        "microsoft-servicebus-client",
    ),
    (
        "Microsoft-ServiceBus-Client/Operational",
        "microsoft-servicebus-client",
    ),
];

/// Returns the log sources of an event. `kind` is Sysmon's `EventType`, which parts events of one number.
fn logsources<'r>(channel: &str, id: i64, kind: Option<&str>) -> LogSources<'r> {
    let known = SERVICES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(channel));
    let service = known.map(|(_, service)| *service);
    let categories: &[&'static str] = match (service, id) {
        (Some("sysmon"), _) => sysmon(id, kind),
        (Some("security"), 4688) => &["process_creation"],
        (Some("powershell"), 4103) => &["ps_module"],
        (Some("powershell"), 4104) => &["ps_script"],
        (Some("powershell-classic"), 400) => &["ps_classic_start"],
        (Some("powershell-classic"), 600) => &["ps_classic_provider_start"],
        (Some("powershell-classic"), 800) => &["ps_classic_script"],
        _ => &[],
    };
    LogSources::of(Some("windows"), categories, service.as_slice())
}

/// Event numbers of Sysmon 15; a registry event is one of all registry events as well.
fn sysmon(id: i64, kind: Option<&str>) -> &'static [&'static str] {
    let is = |part: &str| kind.is_some_and(|kind| kind.to_ascii_lowercase().contains(part));
    match id {
        1 => &["process_creation"],
        2 => &["file_change"],
        3 => &["network_connection"],
        4 | 16 => &["sysmon_status"],
        5 => &["process_termination"],
        6 => &["driver_load"],
        7 => &["image_load"],
        8 => &["create_remote_thread"],
        9 => &["raw_access_thread"],
        10 => &["process_access"],
        11 => &["file_event"],
        12 if is("delete") => &["registry_delete", "registry_event"],
        12 => &["registry_add", "registry_event"],
        13 => &["registry_set", "registry_event"],
        14 => &["registry_rename", "registry_event"],
        15 => &["create_stream_hash"],
        17 | 18 => &["pipe_created"],
        19..=21 => &["wmi_event"],
        22 => &["dns_query"],
        23 => &["file_delete"],
        24 => &["clipboard_capture"],
        25 => &["process_tampering"],
        26 => &["file_delete_detected", "file_delete"],
        27 => &["file_block_executable"],
        28 => &["file_block_shredding"],
        29 => &["file_executable_detected"],
        255 => &["sysmon_error"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipper_s_name_is_sigma_s() {
        for (path, expected) in [
            ("Event.EventData.CommandLine", Some("CommandLine")),
            ("Event.UserData.Operation_ClientFailure.User", Some("User")),
            (
                "Event.System.Provider.#attributes.Name",
                Some("Provider_Name"),
            ),
            ("Event.EventData.Threat Name", Some("ThreatName")),
            ("winlog.event_data.TargetUserName", Some("TargetUserName")),
            ("data.win.eventdata.parentImage", Some("ParentImage")),
            ("win.system.eventID", Some("EventID")),
            ("CommandLine", None),
            ("Threat Name", Some("ThreatName")),
            ("Event.System.Version", None),
        ] {
            assert_eq!(name(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn channel_and_number_name_the_log_source() {
        for (channel, id, kind, service, categories) in [
            (SYSMON, 1, None, Some("sysmon"), &["process_creation"][..]),
            (
                SYSMON,
                12,
                Some("DeleteKey"),
                Some("sysmon"),
                &["registry_delete", "registry_event"],
            ),
            (
                SYSMON,
                12,
                Some("CreateKey"),
                Some("sysmon"),
                &["registry_add", "registry_event"],
            ),
            (
                "security",
                4688,
                None,
                Some("security"),
                &["process_creation"],
            ),
            ("Security", 4625, None, Some("security"), &[]),
            (
                "PowerShellCore/Operational",
                4104,
                None,
                Some("powershell"),
                &["ps_script"],
            ),
            ("Unheard/Of", 1, None, None, &[]),
        ] {
            let found = logsources(channel, id, kind);
            assert_eq!(
                found,
                LogSources::of(Some("windows"), categories, service.as_slice())
            );
        }
    }
}

//! What separates a Pod's processes: a network namespace for each Pod; for each container namespaces of mounts, processes
//! and host name, over a layer on `/` that takes all writes, so that the machine's own files are never touched.
//!
//! Everything is done by `ip`, `unshare`, `mount`, `setpriv` and their like, in one small script per container.
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Container, PodSpec, Sysctl};
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::NODE_ADDRESS;

/// The bridge that Pods are on.
const BRIDGE: &str = "br0";

/// A Pod's network namespace.
#[derive(Debug, Clone)]
pub(super) struct Network {
    number: u16,
    pub(super) address: Ipv4Addr,
}

impl Network {
    /// The network of the Pod of this number, from 0: addresses go from 10.244.1.1 upward.
    pub(super) fn new(number: u16) -> anyhow::Result<Self> {
        let third = u8::try_from(1 + number / 254).context("no more addresses for Pods")?;
        let fourth = u8::try_from(1 + number % 254)?;
        Ok(Self { number, address: Ipv4Addr::new(10, 244, third, fourth) })
    }

    fn namespace(&self) -> String {
        format!("pod-{}", self.number)
    }

    /// Makes it: joined to the bridge, loopback up, default route by the node, the Pod's own kernel settings.
    pub(super) async fn create(&self, sysctls: &[Sysctl]) -> anyhow::Result<()> {
        let (namespace, address, number) = (self.namespace(), self.address, self.number);
        let outside = format!(
            "netns add {namespace}\n\
             link add v{number} type veth peer name eth0 netns {namespace}\n\
             link set v{number} master {BRIDGE} up\n"
        );
        with_input(Command::new("ip").args(["-batch", "-"]), &outside).await?;
        let inside = format!(
            "link set lo up\n\
             addr add {address}/16 dev eth0\n\
             link set eth0 up\n\
             route add default via {NODE_ADDRESS}\n"
        );
        with_input(Command::new("ip").args(["-n", &namespace, "-batch", "-"]), &inside).await?;
        for Sysctl { name, value } in sysctls {
            ensure!(name.starts_with("net."), "the sysctl `{name}` is not of the Pod's network");
            let file = format!("/proc/sys/{}", name.replace('.', "/"));
            let mut write = Command::new("nsenter");
            write.arg(format!("--net=/run/netns/{namespace}"));
            with_input(write.args(["sh", "-c", r#"cat > "$1""#, "sh", &file]), value).await?;
        }
        Ok(())
    }

    /// It was created and not removed since.
    pub(super) fn exists(&self) -> bool {
        Path::new("/run/netns").join(self.namespace()).exists()
    }

    /// Removes it, and with it the end of the cable on the bridge.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        with_input(Command::new("ip").args(["netns", "delete", &self.namespace()]), "").await
    }
}

/// Takes away what a node that was here before has left.
pub(super) async fn clean() -> anyhow::Result<()> {
    let Ok(namespaces) = std::fs::read_dir("/run/netns") else { return Ok(()) };
    for namespace in namespaces {
        let name = namespace?.file_name();
        if name.to_string_lossy().starts_with("pod-") {
            succeed(Command::new("ip").args(["netns", "delete"]).arg(name)).await?;
        }
    }
    Ok(())
}

/// Runs a program with this on its standard input; an error with what it complained about if it fails.
async fn with_input(command: &mut Command, input: &str) -> anyhow::Result<()> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("`{name}` cannot be started"))?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes()).await.with_context(|| format!("`{name}` does not read"))?;
    }
    let output = child.wait_with_output().await?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{name}` failed: {}: {}", output.status, complaint.trim());
    Ok(())
}

/// Runs a program; an error with what it complained about if it fails.
pub(super) async fn succeed(command: &mut Command) -> anyhow::Result<()> {
    with_input(command, "").await
}

/// A folder or file of the node that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    pub(super) read_only: bool,
}

/// Who a container's processes are and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) user: i64,
    pub(super) group: i64,
    /// `fsGroup` and `supplementalGroups`.
    pub(super) groups: Vec<i64>,
    /// Capabilities that are kept, without `CAP_`, in small letters.
    pub(super) capabilities: Vec<String>,
    pub(super) no_new_privileges: bool,
}

/// What container runtimes leave to a container that says nothing.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "mknod",
    "net_bind_service",
    "net_raw",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
    "audit_write",
];

impl Identity {
    /// From the security contexts: the container's over the Pod's. An error for `runAsNonRoot` without another user.
    pub(super) fn of(container: &Container, spec: &PodSpec) -> anyhow::Result<Self> {
        let pod = spec.security_context.clone().unwrap_or_default();
        let own = container.security_context.clone().unwrap_or_default();
        let user = own.run_as_user.or(pod.run_as_user).unwrap_or(0);
        let group = own.run_as_group.or(pod.run_as_group).unwrap_or(0);
        let non_root = own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false);
        ensure!(
            !non_root || user != 0,
            "container has runAsNonRoot and image will run as root: set `runAsUser`"
        );
        let mut groups = pod.supplemental_groups.unwrap_or_default();
        groups.extend(pod.fs_group);
        let spelt = |name: &String| name.to_lowercase().trim_start_matches("cap_").to_owned();
        let change = own.capabilities.unwrap_or_default();
        let dropped: Vec<_> = change.drop.iter().flatten().map(spelt).collect();
        let mut capabilities: Vec<String> = if dropped.iter().any(|name| name == "all") {
            Vec::new()
        } else {
            let kept = DEFAULT_CAPABILITIES.iter().filter(|name| !dropped.iter().any(|drop| drop == *name));
            kept.map(|name| (*name).to_owned()).collect()
        };
        capabilities.extend(change.add.iter().flatten().map(spelt));
        let no_new_privileges = own.allow_privilege_escalation == Some(false);
        Ok(Self { user, group, groups, capabilities, no_new_privileges })
    }

    /// `setpriv` and its options, up to and with `--`.
    fn setpriv(&self) -> Vec<String> {
        let mut words = vec![
            "setpriv".to_owned(),
            "--reuid".to_owned(),
            self.user.to_string(),
            "--regid".to_owned(),
            self.group.to_string(),
        ];
        if self.groups.is_empty() {
            words.push("--clear-groups".to_owned());
        } else {
            let groups: Vec<_> = self.groups.iter().map(i64::to_string).collect();
            words.extend(["--groups".to_owned(), groups.join(",")]);
        }
        let mut bounding = "-all".to_owned();
        for name in &self.capabilities {
            bounding.push_str(",+");
            bounding.push_str(name);
        }
        words.push(format!("--bounding-set={bounding}"));
        words.push("--inh-caps=-all".to_owned());
        if self.no_new_privileges {
            words.push("--no-new-privs".to_owned());
        }
        words.push("--".to_owned());
        words
    }
}

/// A container to be run.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) network: Network,
    pub(super) hostname: String,
    /// An empty folder of the node, for the container's layer.
    pub(super) scratch: PathBuf,
    pub(super) mounts: Vec<Mount>,
    pub(super) read_only_root: bool,
    pub(super) identity: Identity,
    pub(super) working_dir: PathBuf,
    /// Program and arguments.
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<String>,
    /// Folders that another user than root must be able to pass to reach the image's programs.
    pub(super) passable: Vec<PathBuf>,
    /// File systems other than `/` that those are on: each gets a layer of its own, for a layer has one below it.
    pub(super) layers: Vec<PathBuf>,
}

impl Sandbox {
    /// The command that runs it. The program is the only child of the process that this starts, and ends with it.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.network.namespace()))
            .args(["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--"])
            .args(["sh", "-eu", "-c", &self.script(), "sh"])
            .args(self.identity.setpriv())
            .args(["env", "-i"])
            .args(&self.environment)
            .args(&self.command);
        command
    }

    /// The command that runs something else in the running container whose program has this process id, with its identity
    /// and its environment.
    pub(super) fn exec(&self, pid: u32, words: &[String]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &pid.to_string(),
                "--mount",
                "--uts",
                "--pid",
                "--net",
                "--root",
                "--wd",
                "--",
            ])
            .args(self.identity.setpriv())
            .args(["env", "-i"])
            .args(&self.environment)
            .args(words);
        command
    }

    /// Makes the container's root and leaves the words that follow it (`setpriv`, the program) to be run in it.
    ///
    /// Paths of mounts are made *after* the root is changed, so that links in them (`/var/run`) lead where they lead in the
    /// container and not to the machine's own files.
    fn script(&self) -> String {
        let mut script = String::new();
        let mut line = |line: String| {
            script.push_str(&line);
            script.push('\n');
        };
        line(format!("cd {}", quoted(&self.scratch)));
        line("mount -t tmpfs -o mode=0755 tmpfs .".into());
        // The working folder is looked up again: it is now the new file system's.
        line(format!("cd {}", quoted(&self.scratch)));
        line("mkdir upper work root".into());
        line("mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root".into());
        line("cd root".into());
        line("mkdir -p .node".into());
        line("pivot_root . .node".into());
        line("cd /".into());
        line("mount -t proc proc /proc".into());
        line("mount --rbind /.node/sys /sys".into());
        line("mount --rbind /.node/dev /dev".into());
        line("mount -t tmpfs -o mode=1777 tmpfs /dev/shm".into());
        line("mount --bind /.node/etc/hosts /etc/hosts".into());
        // Nothing answers there, at once: names come from the hosts file.
        line("rm -f /etc/resolv.conf".into());
        line(format!("echo nameserver {NODE_ADDRESS} > /etc/resolv.conf"));
        line(format!("echo {} > /proc/sys/kernel/hostname", quoted(Path::new(&self.hostname))));
        for (number, at) in self.layers.iter().enumerate() {
            let scratch = quoted(&below(&self.scratch));
            line(format!("mkdir {scratch}/upper{number} {scratch}/work{number}"));
            line(format!(
                "mount -t overlay -o lowerdir={},upperdir={scratch}/upper{number},workdir={scratch}/work{number} \
                 overlay {}",
                quoted(&below(at)),
                quoted(at)
            ));
        }
        for folder in &self.passable {
            // One that is not there yet (a working folder) will be made passable.
            line(format!("[ ! -d {0} ] || chmod a+x {0}", quoted(folder)));
        }
        let mut mounts: Vec<_> = self.mounts.iter().collect();
        mounts.sort_by_key(|mount| mount.target.components().count());
        for mount in mounts {
            let target = quoted(&mount.target);
            let source = quoted(&below(&mount.source));
            line(format!(
                "if [ -d {source} ]; then mkdir -p {target}; else mkdir -p \"$(dirname -- {target})\"; \
                 [ -e {target} ] || : > {target}; fi"
            ));
            line(format!("mount --bind {source} {target}"));
            if mount.read_only {
                line(format!("mount -o remount,bind,ro {target}"));
            }
        }
        let working_dir = quoted(&self.working_dir);
        line(format!("mkdir -p {working_dir}"));
        line("umount -l /.node".into());
        line("rmdir /.node".into());
        if self.read_only_root {
            line("mount -o remount,bind,ro /".into());
        }
        line(format!("cd {working_dir}"));
        line("exec \"$@\"".into());
        script
    }
}

/// Whether this command line (words that end with zero) is one of those that lead to a container's program: `unshare` itself
/// before it becomes the shell, the script, `setpriv`, `env`.
pub(super) fn is_preparing(words: &[u8]) -> bool {
    let steps: [&[u8]; 4] =
        [b"unshare\0--mount\0--uts\0", b"sh\0-eu\0-c\0", b"setpriv\0--reuid\0", b"env\0-i\0"];
    steps.iter().any(|step| words.starts_with(step))
}

/// Where a path of the node is while the container's root is made.
fn below(path: &Path) -> PathBuf {
    Path::new("/.node").join(path.strip_prefix("/").unwrap_or(path))
}

/// As one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// The folders on the way to the files that an image's words name and to what links there lead to, and its working folder.
pub(super) fn passable(words: &[String], working_dir: Option<&Path>) -> Vec<PathBuf> {
    let files = words.iter().map(Path::new).filter(|path| path.is_absolute() && path.is_file());
    let real = files.clone().filter_map(|file| file.canonicalize().ok());
    let ends = files.map(Path::to_owned).chain(real).filter_map(|file| file.parent().map(Path::to_owned));
    let ends: Vec<_> = ends.chain(working_dir.map(Path::to_owned)).collect();
    let ways = ends.iter().flat_map(|end| end.ancestors());
    let mut folders: Vec<_> = ways.filter(|folder| folder.parent().is_some()).map(Path::to_owned).collect();
    folders.sort();
    folders.dedup();
    folders
}

/// The file systems other than `/` that these folders are on, outer ones first, by `/proc/self/mountinfo` (proc(5)).
pub(super) fn layers(mountinfo: &str, folders: &[PathBuf]) -> Vec<PathBuf> {
    const OWN: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];
    // Field 5, with spaces and their like in octal: such a mount point is not found, and nothing runs from there.
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut layers: Vec<_> = points
        .filter(|point| point.parent().is_some() && !OWN.iter().any(|own| point.starts_with(own)))
        .filter(|point| folders.iter().any(|folder| folder.starts_with(point)))
        .collect();
    layers.sort();
    layers.dedup();
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_address(number: u16, expected: Option<[u8; 4]>) {
        let address = Network::new(number).ok().map(|network| network.address.octets());
        assert_eq!(address, expected, "{number}");
    }

    #[test]
    fn addresses() {
        check_address(0, Some([10, 244, 1, 1]));
        check_address(253, Some([10, 244, 1, 254]));
        check_address(254, Some([10, 244, 2, 1]));
        check_address(254 * 255 - 1, Some([10, 244, 255, 254]));
        check_address(254 * 255, None);
    }

    #[track_caller]
    fn check_identity(pod: serde_json::Value, own: serde_json::Value, expected: Result<&str, &str>) {
        let spec: PodSpec =
            serde_json::from_value(serde_json::json!({"containers": [], "securityContext": pod})).unwrap();
        let container: Container =
            serde_json::from_value(serde_json::json!({"name": "c", "securityContext": own})).unwrap();
        let got = Identity::of(&container, &spec).map(|identity| identity.setpriv().join(" "));
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(got), Err(expected)) => assert!(got.to_string().contains(expected), "{got}"),
            (got, expected) => panic!("{got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn identities() {
        use serde_json::json;
        check_identity(
            json!({}),
            json!({"capabilities": {"drop": ["ALL"]}}),
            Ok("setpriv --reuid 0 --regid 0 --clear-groups --bounding-set=-all --inh-caps=-all --"),
        );
        check_identity(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]}),
            json!({
                "runAsUser": 65532, "allowPrivilegeEscalation": false, "runAsNonRoot": true,
                "capabilities": {"drop": ["all"], "add": ["NET_BIND_SERVICE"]},
            }),
            Ok("setpriv --reuid 65532 --regid 2 --groups 4,3 --bounding-set=-all,+net_bind_service \
                --inh-caps=-all --no-new-privs --"),
        );
        check_identity(
            json!({}),
            json!({"capabilities": {"drop": [
                "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_RAW", "SETFCAP", "SETGID",
                "SETPCAP", "SETUID", "CAP_SYS_CHROOT",
            ]}}),
            Ok("setpriv --reuid 0 --regid 0 --clear-groups \
                --bounding-set=-all,+net_bind_service,+audit_write --inh-caps=-all --"),
        );
        check_identity(json!({"runAsNonRoot": true}), json!({}), Err("runAsNonRoot"));
        check_identity(
            json!({"runAsNonRoot": true}),
            json!({"runAsNonRoot": false}),
            Ok(
                "setpriv --reuid 0 --regid 0 --clear-groups --bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,\
             +kill,+mknod,+net_bind_service,+net_raw,+setfcap,+setgid,+setpcap,+setuid,+sys_chroot,+audit_write \
             --inh-caps=-all --",
            ),
        );
    }

    fn sandbox() -> Sandbox {
        let mount = |source: &str, target: &str, read_only| Mount {
            source: source.into(),
            target: target.into(),
            read_only,
        };
        Sandbox {
            network: Network::new(3).unwrap(),
            hostname: "web-0".into(),
            scratch: "/run/node/c".into(),
            mounts: vec![mount("/run/node/v/in", "/data/in", true), mount("/run/node/v/out", "/data", false)],
            read_only_root: true,
            identity: Identity::of(&Container::default(), &PodSpec::default()).unwrap(),
            working_dir: "/data/work".into(),
            command: vec!["/bin/server".into(), "$(not) a 'script'".into()],
            environment: vec!["A=b c".into()],
            passable: vec!["/home".into()],
            layers: vec!["/home".into()],
        }
    }

    #[test]
    fn the_root_is_made_in_order() {
        let script = sandbox().script();
        let order = [
            "pivot_root . .node",
            "overlay '/home'",
            "chmod a+x '/home'",
            "mount --bind '/.node/run/node/v/out' '/data'",
            "mount --bind '/.node/run/node/v/in' '/data/in'",
            "mount -o remount,bind,ro '/data/in'",
            "mkdir -p '/data/work'",
            "umount -l /.node",
            "mount -o remount,bind,ro /\n",
            "cd '/data/work'",
            "exec \"$@\"",
        ];
        let places: Vec<_> = order.iter().map(|step| script.find(step)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}\n{script}");
        assert!(!script.contains("remount,bind,ro '/data'\n"));
        // What a Pod's author wrote is no part of the script.
        let command = sandbox().command();
        let words: Vec<_> = command.as_std().get_args().map(|word| word.to_str().unwrap()).collect();
        assert!(!script.contains("/bin/server") && !script.contains("A=b"));
        assert!(words.ends_with(&["env", "-i", "A=b c", "/bin/server", "$(not) a 'script'"]), "{words:?}");
    }

    #[test]
    fn steps_to_the_program() {
        let sandbox = sandbox();
        let command = sandbox.command();
        let words: Vec<_> = command.as_std().get_args().map(|word| word.to_str().unwrap()).collect();
        let from = |word: &str| {
            let start = words.iter().position(|other| *other == word).unwrap();
            words[start..].iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect::<Vec<_>>()
        };
        for step in ["unshare", "sh", "setpriv", "env"] {
            assert!(is_preparing(&from(step)), "{step}");
        }
        assert!(!is_preparing(&from("/bin/server")));
        assert!(!is_preparing(b"sh\0-c\0true\0"));
    }

    #[test]
    fn file_systems_on_the_way() {
        let mountinfo = "\
            22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            23 22 0:5 / /proc rw - proc proc rw\n\
            24 22 0:6 / /run rw - tmpfs tmpfs rw\n\
            25 22 8:2 / /home rw shared:1 - ext4 /dev/sda2 rw\n\
            26 25 8:3 / /home/me/work rw - ext4 /dev/sda3 rw\n\
            27 22 8:4 / /home/you rw - ext4 /dev/sda4 rw\n";
        let folders = ["/home", "/home/me", "/home/me/work/target", "/usr/bin", "/run/x", "/proc/self"];
        let got = layers(mountinfo, &folders.map(PathBuf::from));
        assert_eq!(got, ["/home", "/home/me/work"].map(PathBuf::from));
        assert_eq!(
            layers(mountinfo, &[PathBuf::from("/usr/bin"), "/homes".into()]),
            [""; 0].map(PathBuf::from)
        );
    }

    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted(Path::new("/a b/$(c)'d")), r"'/a b/$(c)'\''d'");
    }

    #[test]
    fn ways_to_programs() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::fs::write(real.join("program"), "").unwrap();
        let links = folder.path().canonicalize().unwrap().join("links");
        std::fs::create_dir(&links).unwrap();
        std::os::unix::fs::symlink(real.join("program"), links.join("program")).unwrap();
        let words =
            [links.join("program").to_string_lossy().into_owned(), "relative/x".into(), "/no/where".into()];
        let folders = passable(&words, Some(Path::new("/work/folder")));
        assert!(folders.contains(&"/work".into()) && folders.contains(&"/work/folder".into()), "{folders:?}");
        assert!(folders.contains(&real) && folders.contains(&links), "{folders:?}");
        assert!(!folders.iter().any(|folder| folder.starts_with("/no") || folder == Path::new("/")));
    }
}

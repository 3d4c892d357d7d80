//! Which container a process is in, and which Kubernetes pod: read from its cgroup paths, as container runtimes name them.
//!
//! Pure text work. A name proves nothing (whoever may make cgroups may call one what he likes): it is told in records, and
//! decides nothing.

use std::sync::Arc;

/// Hexadecimal digits in a container's id (docker, containerd below Kubernetes, CRI-O, podman, nerdctl: a SHA-256).
const ID_DIGITS: usize = 64;

/// How the part of a name before the id ends for the runtime's own helper, which is outside of the container it serves.
const MONITOR: &str = "conmon-";

/// Where a process runs, as far as its cgroups tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Id of the innermost container: 64 hexadecimal digits.
    pub container: Option<Arc<str>>,
    /// Uid of the Kubernetes pod: a UUID, or the 32 digits that the kubelet gives a static pod.
    pub pod: Option<Arc<str>>,
}

/// Reads the paths of `/proc/PID/cgroup`. With cgroup v1 there is one for each hierarchy, and not every runtime uses all of them.
pub fn place_of(cgroups: &[Arc<str>]) -> Place {
    let places = cgroups.iter().map(|path| place(path));
    places.max_by_key(|p| (p.container.is_some(), p.pod.is_some())).unwrap_or_default()
}

fn place(path: &str) -> Place {
    let mut found = Place::default();
    for name in path.split('/') {
        if let Some(pod) = pod(name) {
            // What was met above it is the container that the whole node runs in.
            found = Place { container: None, pod: Some(pod) };
        }
        if let Some(id) = container(name) {
            found.container = Some(id.into());
        }
    }
    found
}

/// `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID`, `libpod-payload-ID`, `…-podUID.slice:cri-containerd:ID` (containerd that
/// was given systemd's names without systemd), or the bare id.
fn container(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (before, id) = name.split_at_checked(name.len().checked_sub(ID_DIGITS)?)?;
    let set_off = before.is_empty() || before.ends_with(['-', ':']);
    (set_off && !before.ends_with(MONITOR) && is_hex(id)).then_some(id)
}

/// `podUID` (cgroupfs), or `kubepods-burstable-podUID.slice` with `_` for `-` (systemd, in whose names `-` means a level).
fn pod(name: &str) -> Option<Arc<str>> {
    let name = name.split_once(".slice").map_or(name, |(slice, _)| slice);
    let (before, uid) = name.rsplit_once("pod")?;
    if !(before.is_empty() || before.ends_with('-')) {
        return None;
    }
    let uid = uid.replace('_', "-");
    (is_uuid(&uid) || (uid.len() == 32 && is_hex(&uid))).then(|| uid.into())
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.split('-').all(is_hex)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    const OTHER: &str = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d";
    const UID: &str = "8e7c1e7f-2c5b-4f0a-9d1e-0a1b2c3d4e5f";
    const STATIC: &str = "d9b1c38bd0f3a4a1a1f5a5f3c2b7e6d8";

    /// `ID`, `OTHER`, `UID`, `STATIC` and `U_I_D` (as systemd has it) stand for those.
    fn read(path: &str) -> (Option<String>, Option<String>) {
        let path = path.replace("U_I_D", &UID.replace('-', "_")).replace("UID", UID);
        let path = path.replace("STATIC", STATIC).replace("OTHER", OTHER).replace("ID", ID);
        let Place { container, pod } = place_of(&[path.as_str().into()]);
        (container.map(|c| c.to_string()), pod.map(|p| p.to_string()))
    }

    #[track_caller]
    fn container_only(path: &str) {
        assert_eq!(read(path), (Some(ID.into()), None), "{path}");
    }

    #[track_caller]
    fn in_pod(path: &str) {
        assert_eq!(read(path), (Some(ID.into()), Some(UID.into())), "{path}");
    }

    #[track_caller]
    fn nowhere(path: &str) {
        assert_eq!(read(path), (None, None), "{path}");
    }

    #[test]
    fn docker() {
        container_only("/docker/ID");
        container_only("/system.slice/docker-ID.scope");
        container_only("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope");
        // With --cgroup-parent, and a service manager inside.
        container_only("/my.slice/docker-ID.scope/init.scope");
        container_only("/docker/ID/system.slice/cron.service");
        // Docker in docker: the innermost.
        container_only("/docker/OTHER/docker/ID");
        // As seen from within another cgroup namespace.
        container_only("/../docker-ID.scope");
        container_only("/ecs/cluster/STATIC/ID");
    }

    #[test]
    fn containerd() {
        container_only("/default/ID");
        container_only("/system.slice/nerdctl-ID.scope");
        in_pod("/kubepods/burstable/podUID/ID");
        in_pod("/kubepods/podUID/ID");
        in_pod(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/cri-containerd-ID.scope",
        );
        in_pod("/kubepods.slice/kubepods-podU_I_D.slice/cri-containerd-ID.scope");
        in_pod("/system.slice/containerd.service/kubepods-besteffort-podU_I_D.slice:cri-containerd:ID");
        in_pod("/kubepods-besteffort-podU_I_D.slice:cri-containerd:ID");
        in_pod("/../../kubepods-besteffort-podU_I_D.slice/cri-containerd-ID.scope");
    }

    #[test]
    fn crio() {
        in_pod("/kubepods/besteffort/podUID/crio-ID");
        in_pod("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_I_D.slice/crio-ID.scope");
        in_pod("/kubepods.slice/kubepods-podU_I_D.slice/crio-ID.scope/container");
        // The monitor is in the pod's slice, and not in the container.
        let monitor = read("/kubepods.slice/kubepods-podU_I_D.slice/crio-conmon-ID.scope");
        assert_eq!(monitor, (None, Some(UID.into())));
    }

    #[test]
    fn podman() {
        container_only("/machine.slice/libpod-ID.scope");
        container_only("/machine.slice/libpod-ID.scope/container");
        container_only("/libpod_parent/libpod-ID");
        container_only("/system.slice/web.service/libpod-payload-ID");
        container_only("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container");
        // Podman's own pods are no Kubernetes pods.
        container_only("/machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope/container");
        container_only("/libpod_parent/OTHER/libpod-ID");
        nowhere("/machine.slice/libpod-conmon-ID.scope");
        nowhere("/libpod_parent/libpod-conmon-ID");
    }

    #[test]
    fn kubernetes_with_docker() {
        in_pod("/kubepods/besteffort/podUID/ID");
        in_pod("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/docker-ID.scope");
        // A static pod.
        assert_eq!(read("/kubepods/burstable/podSTATIC/ID"), (Some(ID.into()), Some(STATIC.into())));
        // Nodes that are containers themselves (kind): what counts is inside.
        in_pod("/docker/OTHER/kubelet/kubepods/burstable/podUID/ID");
        in_pod(
            "/docker/OTHER/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_I_D.slice/cri-containerd-ID.scope",
        );
        assert_eq!(read("/docker/OTHER/kubepods/podUID"), (None, Some(UID.into())));
    }

    #[test]
    fn no_container() {
        for path in [
            "/",
            "",
            "/init.scope",
            "/system.slice/nginx.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/system.slice/docker.service",
            "/kubepods/burstable",
            "/kubepods.slice/kubepods-burstable.slice",
            "/lxc/web",
            "/lxc.payload.web/system.slice",
            "/machine.slice/machine-qemu.scope",
            // One digit too few, one too many, a digit that is none, another alphabet.
            "/docker/b1c0e0a1",
            "/docker/0ID",
            "/docker/IDg",
            "/docker/CA978112CA1BBDCAFAC231B39A23DC4DA786EFF8147C4E72B9807785AFEE48BB",
            "/docker/ääääääääääääääääääääääääääääääää",
            "/system.slice/var-lib-docker-containers-ID-mounts-shm.mount",
            "/podcast/pod",
            "/tripod8e7c1e7f-2c5b-4f0a-9d1e-0a1b2c3d4e5f",
            "/pod8e7c1e7f2-c5b-4f0a-9d1e-0a1b2c3d4e5f",
        ] {
            nowhere(path);
        }
    }

    #[test]
    fn the_hierarchy_that_tells_most_counts() {
        let paths = ["/", "/docker/ID", "/kubepods/podUID/ID", "/system.slice/containerd.service"];
        let paths: Vec<Arc<str>> =
            paths.iter().map(|p| p.replace("UID", UID).replace("ID", ID).as_str().into()).collect();
        let place = place_of(&paths);
        assert_eq!((place.container.as_deref(), place.pod.as_deref()), (Some(ID), Some(UID)));
        assert_eq!(place_of(&[]), Place::default());
    }
}

package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/hurd-qemu-action/internal/process"
	"github.com/org/hurd-qemu-action/internal/units"
)

// dockerSocket is where runners look for the engine, whatever DOCKER_HOST says
// (actions/runner, DockerCommandManager.cs).
const dockerSocket = "/var/run/docker.sock"

// System is this host, as far as the kernel and the file systems tell. What the
// other packages find out is for the caller to add.
func System(getenv func(string) string) Host {
	dialer := net.Dialer{Timeout: dialTime}
	return Host{
		Root: os.DirFS("/"), Getenv: getenv, UID: os.Geteuid(), Arch: runtime.GOARCH, Now: time.Now,
		Paths: Paths{Docker: dockerSocket},
		Node:  node, Space: space, Writable: writable, Socket: socket,
		Dial: dialer.DialContext,
		Listen: func(ctx context.Context, network, address string) (net.Listener, error) {
			return (&net.ListenConfig{}).Listen(ctx, network, address)
		},
		Program: program, Limit: limit, CPUs: runtime.NumCPU,
	}
}

// dialTime bounds one connection.
const dialTime = 3 * time.Second

func node(path string) (Node, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Node{}, err
	}
	n := Node{Mode: info.Mode()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		n.GID = int(st.Gid)
	}
	return n, nil
}

// types are the file systems that a verdict depends on (statfs(2)).
var types = map[uint32]string{
	unix.NFS_SUPER_MAGIC: "nfs", unix.TMPFS_MAGIC: "tmpfs", unix.FUSE_SUPER_MAGIC: "fuse",
	unix.CIFS_SUPER_MAGIC: "cifs", unix.SMB2_SUPER_MAGIC: "cifs",
}

func space(dir string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Space{}, fmt.Errorf("asking for its free space: %w", err)
	}
	block := units.Bytes(st.Bsize)
	return Space{
		Free: units.Bytes(st.Bavail) * block, Total: units.Bytes(st.Blocks) * block,
		Nodes: st.Ffree, Inodes: st.Files, Type: types[uint32(st.Type)],
	}, nil
}

func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".hurd-doctor-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096)) // a full disk has names left, and no blocks
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

func socket(ctx context.Context, dir string) (err error) {
	private, err := os.MkdirTemp(dir, ".hurd-doctor-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(private)) }()
	path := filepath.Join(private, "s")
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // nothing was said
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	return conn.Close()
}

// sbin is where e2fsprogs are, and what the path of other users than root lacks.
var sbin = []string{"/usr/sbin", "/sbin", "/usr/local/sbin"}

// program runs one of those that runs rely on, in the place where they find it.
func program(ctx context.Context, name string, arg ...string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range sbin {
		if err == nil {
			break
		}
		if found, sbinErr := exec.LookPath(filepath.Join(dir, name)); sbinErr == nil {
			path, err = found, nil
		}
	}
	if err != nil {
		return "", err
	}
	var out, also bytes.Buffer
	cmd := process.Command(ctx, path, arg...)
	cmd.Stdout, cmd.Stderr = &out, &also // e2fsprogs tell their version there
	err = process.Run(ctx, cmd)
	return out.String() + also.String(), err
}

func limit(resource int) (uint64, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(resource, &r); err != nil {
		return 0, err
	}
	return r.Cur, nil
}

// nearest is the directory itself, or the first above it that exists: the one
// in which it will be made.
func (e *exam) nearest(dir string) string {
	if e.Node == nil || dir == "" {
		return dir
	}
	for {
		_, err := e.Node(dir)
		if !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

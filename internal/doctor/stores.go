package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/org/hurd-qemu-action/internal/units"
)

func checkImages(_ context.Context, e *exam) Finding {
	if e.Images == nil {
		return skipped("not asked")
	}
	return lookInto(e.Images, e.Paths.Store, "image", "images")
}

func checkSnapshots(_ context.Context, e *exam) Finding {
	if e.Snapshots == nil {
		return skipped("not asked")
	}
	return lookInto(e.Snapshots, e.Paths.Snapshots, "snapshot", "saved machines")
}

// lookInto lists a store, which command manages.
func lookInto(list func() ([]Entry, error), dir, command, what string) Finding {
	entries, err := list()
	if err != nil {
		return broken(err.Error(), fmt.Sprintf("Give this user the right to read %s, or set cache-dir to another directory.", dir))
	}
	var size units.Bytes
	var bad, names []string
	used, partial := 0, 0
	for _, n := range entries {
		size += n.Size
		if n.InUse {
			used++
		}
		if n.Partial {
			partial++
		}
		if n.Problem != "" {
			bad, names = append(bad, n.Problem), append(names, fmt.Sprintf("%.20s", n.Name))
		}
	}
	text := fmt.Sprintf("nothing in %s yet", dir)
	if len(entries) > 0 {
		text = fmt.Sprintf("%s: %d of %s, %s", dir, len(entries), what, size.Human())
	}
	if used > 0 {
		text += fmt.Sprintf(", %d in use by a run that goes on", used)
	}
	if partial > 0 {
		text += fmt.Sprintf(", %d received in part, which the next run goes on with", partial)
	}
	if len(bad) > 0 {
		return broken(text+"; not usable: "+strings.Join(bad, "; "), fmt.Sprintf("Remove them, and the next run makes them anew: hurd-qemu-action %s rm %s.", command, strings.Join(names, " ")))
	}
	return fine(text)
}

func checkImage(ctx context.Context, e *exam) Finding {
	if e.Image == nil {
		return skipped("none was named (--image)")
	}
	text, err := e.Image(ctx)
	if err != nil {
		return broken(err.Error(), "Correct the input image, or the file: for one that is damaged, make or fetch it anew.")
	}
	return fine(text)
}

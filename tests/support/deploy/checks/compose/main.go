// Loads a compose file with the loader of docker compose, and writes it as JSON with everything resolved.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:2], cli.WithName("check"), cli.WithProfiles(os.Args[2:]))
	if err == nil {
		project, failed := options.LoadProject(context.Background())
		if err = failed; err == nil {
			content, failed := project.MarshalJSON()
			if err = failed; err == nil {
				_, err = os.Stdout.Write(content)
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

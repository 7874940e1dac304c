// Reads a Dockerfile from stdin with BuildKit's own parser and rules: `docker build --check` without an engine.
// Writes JSON: the warnings, and the instructions of each stage with what a shell would be given of RUN.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	digest "github.com/opencontainers/go-digest"
)

type warning struct {
	Rule, Detail string
	Line         int32
}

type instruction struct {
	Name, Text string
	Arguments  []string
}

type stage struct {
	Name, Base   string
	Instructions []instruction
}

type answer struct {
	Warnings  []warning
	Arguments []instruction // before the first stage
	Stages    []stage
}

// No registry is asked: every base exists, and sets nothing.
type anyImage struct{}

func (anyImage) ResolveImageConfig(_ context.Context, reference string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	config := []byte(`{"architecture": "amd64", "os": "linux", "config": {}}`)
	return reference, digest.FromBytes(config), config, nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	content, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	found := answer{Warnings: []warning{}}
	source := llb.NewSourceMap(nil, "Dockerfile", "Dockerfile", content)
	source.Definition = &llb.Definition{}
	results, err := dockerfile2llb.DockerfileLint(context.Background(), content, dockerfile2llb.ConvertOpt{
		Config:       dockerui.Config{BuildArgs: map[string]string{}},
		SourceMap:    source,
		MetaResolver: anyImage{},
	})
	if err != nil {
		return err
	}
	if results.Error != nil {
		return fmt.Errorf("the Dockerfile cannot be built: %s", results.Error.Message)
	}
	for _, one := range results.Warnings {
		found.Warnings = append(found.Warnings, warning{one.RuleName, one.Detail, one.Location.Ranges[0].Start.Line})
	}
	parsed, err := parser.Parse(bytes.NewReader(content))
	if err != nil {
		return err
	}
	stages, arguments, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return err
	}
	for _, one := range arguments {
		found.Arguments = append(found.Arguments, read(&one))
	}
	for _, one := range stages {
		made := stage{Name: one.Name, Base: one.BaseName}
		for _, command := range one.Commands {
			made.Instructions = append(made.Instructions, read(command))
		}
		found.Stages = append(found.Stages, made)
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

func read(command instructions.Command) instruction {
	made := instruction{Name: strings.ToUpper(command.Name()), Text: fmt.Sprint(command)}
	switch one := command.(type) {
	case *instructions.RunCommand:
		made.Arguments = one.CmdLine
	case *instructions.CopyCommand:
		made.Arguments = append(append(append([]string{"--from=" + one.From}, one.Chown), one.SourcePaths...), one.DestPath)
	case *instructions.EnvCommand:
		for _, pair := range one.Env {
			made.Arguments = append(made.Arguments, pair.Key, pair.Value)
		}
	case *instructions.ArgCommand:
		for _, pair := range one.Args {
			made.Arguments = append(made.Arguments, pair.Key, pair.ValueString())
		}
	case *instructions.UserCommand:
		made.Arguments = []string{one.User}
	case *instructions.HealthCheckCommand:
		made.Arguments = one.Health.Test
	case *instructions.EntrypointCommand:
		made.Arguments = one.CmdLine
	case *instructions.CmdCommand:
		made.Arguments = one.CmdLine
	}
	return made
}

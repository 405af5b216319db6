module agentic.example/peers/parsers

go 1.26

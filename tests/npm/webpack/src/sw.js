import "inpage/sw";
